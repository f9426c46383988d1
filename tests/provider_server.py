"""A small provider in OpenAI's wire format for tests: it keeps files and jobs, trains by remembering, and loses answers on demand."""

import json
import threading
from email import message_from_bytes
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from core.near_duplicates import content_words

Reply = tuple[int, dict[str, Any]]


class ProviderServer:
    """Use as a context manager. `base` knows nothing; a fine-tune answers as the nearest question that it was trained on."""

    def __init__(self, *, looks: int = 3) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.lose = 0
        """So many creations of a job take effect without an answer."""
        self.errors = 0
        """So many requests are answered with 500."""
        self.requests: list[str] = []
        self._looks = looks
        self._models: dict[str, list[tuple[frozenset[str], str]]] = {"base": []}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def survivors(self) -> list[str]:
        return [id_ for id_, job in self.jobs.items() if job["status"] != "cancelled"]

    def answer(self, method: str, path: str, kind: str, body: bytes) -> Reply | None:
        """Status and JSON; None: the connection is cut."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            if self.errors:
                self.errors -= 1
                return 500, {"error": {"message": "for the test", "type": "server_error"}}
            match method, path.removeprefix("/v1").strip("/").split("/"):
                case "GET", ["files"]:
                    return 200, {"object": "list", "data": [self._file(id_) for id_ in self.files], "has_more": False}
                case "POST", ["files"]:
                    return 200, self._upload(kind, body)
                case "GET", ["fine_tuning", "jobs"]:
                    for job in self.jobs.values():
                        self._look(job)
                    return 200, {"object": "list", "data": list(reversed(self.jobs.values())), "has_more": False}
                case "POST", ["fine_tuning", "jobs"]:
                    return self._create(json.loads(body))
                case "POST", ["fine_tuning", "jobs", id_, "cancel"]:
                    self.jobs[id_]["status"] = "cancelled"
                    return 200, self.jobs[id_]
                case "POST", ["chat", "completions"]:
                    return self._chat(json.loads(body))
        return 404, {"error": {"message": "no such path", "type": "invalid_request_error"}}

    def _file(self, id_: str) -> dict[str, Any]:
        name, data = self.files[id_]
        return {"id": id_, "object": "file", "bytes": len(data), "created_at": 1, "filename": name, "purpose": "fine-tune", "status": "processed"}  # fmt: skip

    def _upload(self, kind: str, body: bytes) -> dict[str, Any]:
        form = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body, policy=HTTP)
        part = next(part for part in form.iter_parts() if part.get_filename())
        id_ = f"file-{len(self.files) + 1}"
        self.files[id_] = (part.get_filename() or "", part.get_payload(decode=True))
        return self._file(id_)

    def _create(self, asked: dict[str, Any]) -> Reply | None:
        if asked["training_file"] not in self.files:
            return 400, {"error": {"message": "there is no such file", "type": "invalid_request_error"}}
        number = len(self.jobs) + 1
        self.jobs[f"job-{number}"] = job = {
            "id": f"job-{number}", "object": "fine_tuning.job", "created_at": number, "status": "running", "model": asked["model"],
            "fine_tuned_model": None, "finished_at": None, "error": None, "hyperparameters": {}, "organization_id": "o",
            "result_files": [], "seed": asked["seed"], "trained_tokens": None, "training_file": asked["training_file"],
            "validation_file": None, "metadata": asked["metadata"], "method": asked["method"], "looks": 0,
        }  # fmt: skip
        if self.lose:
            self.lose -= 1
            return None
        return 200, job

    def _look(self, job: dict[str, Any]) -> None:
        job["looks"] += 1
        if job["status"] == "running" and job["looks"] > self._looks:
            lines = [json.loads(line)["messages"] for line in self.files[job["training_file"]][1].splitlines()]
            job |= {"status": "succeeded", "fine_tuned_model": f"ft:{job['id']}"}
            self._models[f"ft:{job['id']}"] = [(content_words(said[-2]["content"]), said[-1]["content"]) for said in lines]

    def _chat(self, asked: dict[str, Any]) -> Reply:
        if asked["model"] not in self._models:
            return 404, {"error": {"message": "there is no such model", "type": "invalid_request_error"}}
        question = content_words(asked["messages"][-1]["content"])
        known = self._models[asked["model"]]
        best = max(
            known,
            key=lambda row: len(row[0] & question) / len(row[0] | question),
            default=(frozenset(), "I do not know that one."),
        )
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": best[1]}}
        return 200, {"id": "c", "object": "chat.completion", "created": 1, "model": asked["model"], "choices": [choice]}


def _handler(server: ProviderServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            reply = server.answer(self.command, urlsplit(self.path).path, self.headers.get("Content-Type", ""), body)
            if reply is None:
                self.close_connection = True
                return
            data = json.dumps(reply[1]).encode()
            self.send_response(reply[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are no news."""

    return Handler
