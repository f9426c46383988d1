"""Follows one app's alerts and actions as they are committed, for whoever tells the story."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from kafka import KafkaConsumer, TopicPartition

from adapters.kafka import control_consumer, control_record, end_offsets
from adapters.settings import Settings
from schemas.codec import InvalidMessage, read
from schemas.messages import ActionStep, AlertTransition
from schemas.topics import ACTIONS, ALERTS


@dataclass(frozen=True)
class Seen:
    """A committed transition or step with the append time (ms) that the broker gave it."""

    message: AlertTransition | ActionStep
    append_time: int


@dataclass(frozen=True)
class Span:
    """The last action of a kind: its last step, and the append times (ms) of its first and last steps."""

    last: ActionStep
    began: int
    ended: int


class Told:
    """What was seen of one app, in the order in which it is told."""

    def __init__(self, app: str, on_seen: Callable[[Seen], None]) -> None:
        self.app, self.seen = app, list[Seen]()
        self._on_seen = on_seen
        self._alerts, self._early = set[str](), list[Seen]()

    def take(self, seen: Seen) -> None:
        """Keep and tell what concerns the app; a step that overtook its alert, which is on another topic, is told after it."""
        message = seen.message
        app = message.app if isinstance(message, AlertTransition) else message.target.app
        if app != self.app:
            return
        if isinstance(message, ActionStep) and self._overtook(message):
            self._early.append(seen)
            return
        self.seen.append(seen)
        self._on_seen(seen)
        if isinstance(message, AlertTransition) and message.id not in self._alerts:
            self._alerts.add(message.id)
            early, self._early = self._early, []
            for step in early:
                self.take(step)

    def _overtook(self, step: ActionStep) -> bool:
        """Whether a step came before the alert that it follows from. Actions that follow from actions have no alert."""
        return step.kind in ("retrain", "rollback") and step.incident not in self._alerts

    def fired(self) -> list[tuple[AlertTransition, int]]:
        """The first firing of each alert, with its append time."""
        first: dict[str, tuple[AlertTransition, int]] = {}
        for s in self.seen:
            if isinstance(s.message, AlertTransition) and s.message.state == "firing":
                first.setdefault(s.message.id, (s.message, s.append_time))
        return list(first.values())

    def actions(self) -> dict[str, ActionStep]:
        """The latest step of each action by id."""
        return {s.message.id: s.message for s in self.seen if isinstance(s.message, ActionStep)}

    def span(self, kind: str) -> Span | None:
        """The last action of a kind that was asked for."""
        steps = [(s.message, s.append_time) for s in self.seen if isinstance(s.message, ActionStep) and s.message.kind == kind]
        if not steps:
            return None
        last = steps[-1][0]
        times = [time for step, time in steps if step.id == last.id]
        return Span(last, times[0], times[-1])


class Watch(Told):
    """Reads llm.alerts and llm.actions from where they end now; keeps what concerns `app`."""

    def __init__(self, settings: Settings, app: str, on_seen: Callable[[Seen], None]) -> None:
        super().__init__(app, on_seen)
        self._consumer = control_consumer(settings)
        places = {(topic, p): offset for topic in (ALERTS, ACTIONS) for p, offset in end_offsets(settings, topic).items()}
        assign(self._consumer, places)

    async def run(self, stop: asyncio.Event) -> None:
        """Poll until `stop` is set; a record that cannot be read ends the watch with InvalidMessage."""
        while not stop.is_set():
            fetched = await asyncio.to_thread(self._consumer.poll, 300)
            for records in fetched.values():
                for r in records:
                    message = read(control_record(r))
                    if not isinstance(message, AlertTransition | ActionStep):
                        raise InvalidMessage("type", "alerts and actions hold transitions and steps only")
                    self.take(Seen(message, r.timestamp))
        await asyncio.to_thread(self._consumer.close)


def assign(consumer: KafkaConsumer, places: dict[tuple[str, int], int]) -> None:
    """Make `consumer` read exactly these partitions from these offsets."""
    consumer.assign([TopicPartition(*place) for place in places])
    for place, offset in places.items():
        consumer.seek(TopicPartition(*place), offset)
