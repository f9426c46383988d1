"""Which statements the store runs and where, judged on the engine's own canonical spelling of them.

chDB runs with the rights of the process: it would read and write any file and call any address that SQL names. So
table functions, engines and functions that leave the data folder are refused. The text that is judged is what the
engine's parser made of the statement (`formatQuerySingleLine`): no comment, quoting or escape survives in it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Lane = Literal["read", "short", "write", "control"]

BAD_REQUEST: Final = 36
READONLY: Final = 164
SUPPORT_IS_DISABLED: Final = 344

ALLOWED_TABLE_FUNCTIONS: Final = frozenset(
    {
        "format", "generate_series", "generateseries", "generaterandom", "merge", "mergetreeindex", "mergetreeprojection",
        "null", "numbers", "numbers_mt", "primes", "sqlstandardvalues", "values", "view", "zeros", "zeros_mt",
    }
)  # fmt: skip
DENIED_FUNCTIONS: Final = frozenset({"file", "disk", "azure_blob_storage", "source", "python"})
ALLOWED_ENGINES: Final = re.compile(r"(\w*MergeTree|Memory|Null|Atomic|View|MaterializedView|Set|Join)\Z")
DENIED_SETTINGS: Final = re.compile(
    r"(readonly|log_comment|dialect|allow_ddl|default_table_engine|default_temporary_table_engine|output_format_schema"
    r"|format_(schema|template|avro_schema_registry)\w*|input_format_record_errors_file_path"
    r"|additional_(table_filters|result_filter)|input_format_values_(interpret_expressions|deduce_templates_of_expressions)"
    r"|allow_introspection_functions|implicit_table_at_top_level|\w*proxy\w*|\w*user_files\w*|query_id|profile)\Z"
)
SETTING_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,99}\Z")
PARAMETER_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z")

_READS = re.compile(r"(SELECT|WITH|\(|SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN|CHECK)\b|\(")
_CONTROLS = re.compile(
    r"(CREATE (OR REPLACE )?(TEMPORARY )?(TABLE|VIEW|MATERIALIZED VIEW|DATABASE)|ALTER TABLE|DROP (TEMPORARY )?(TABLE|VIEW|DATABASE)"
    r"|RENAME TABLE|EXCHANGE TABLES|TRUNCATE( TABLE)?|OPTIMIZE TABLE|DELETE FROM|UPDATE|UNDROP TABLE"
    r"|SYSTEM (START|STOP) (TTL )?MERGES|SYSTEM FLUSH|KILL (QUERY|MUTATION))\b"
)
# One expression for all three, since each may hold the marks of the others.
_LITERAL = re.compile(r"'(?:[^'\\]|\\.|'')*'|`((?:[^`\\]|\\.|``)*)`|\{(\w+):\s*Identifier\}", re.S)
_PLAIN_NAME = re.compile(r"\w+(\.\w+)*\Z")
_CALLED = re.compile(r"(\w+)\s*\(")
_ENGINE = re.compile(r"\bENGINE\s*=\s*(\w+)")
_FORBIDDEN = re.compile(
    r"\b(INTO OUTFILE|FROM INFILE|PARALLEL WITH|NAMED COLLECTION|INTO FUNCTION|CREATE DICTIONARY|FETCH PARTI?)"
)
_TABLES = re.compile(r"\b(?:FROM|JOIN)\s+(?!system\.)")
_FORMAT = re.compile(r"\bFORMAT (\w+)")
_WORD = re.compile(r"\w+")
_UNQUALIFIED = re.compile(r"CREATE (?:OR REPLACE )?(?:TABLE|VIEW|MATERIALIZED VIEW) (?:IF NOT EXISTS )?\w+(?!\w|\.)")
_NAME = rb"(?:`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"|[A-Za-z_]\w*)"
_DATA_INSERT = re.compile(
    rb"\s*(INSERT\s+INTO\s+(?:TABLE\s+)?" + _NAME + rb"(?:\s*\.\s*" + _NAME + rb")?"
    rb"(?:\s*\(\s*" + _NAME + rb"(?:\s*,\s*" + _NAME + rb")*\s*\))?)"
    rb"\s+FORMAT\s+(\w+)(?:[ \t]*\r?\n|[ \t]+(?=\S)|\s*;?\s*\Z)",
    re.I,
)  # fmt: skip


class Refused(Exception):
    """The store does not run this; `code` and `name` are ClickHouse's."""

    def __init__(self, message: str, code: int = SUPPORT_IS_DISABLED, name: str = "SUPPORT_IS_DISABLED") -> None:
        super().__init__(message)
        self.code, self.name = code, name


@dataclass(frozen=True)
class DataInsert:
    """`INSERT INTO … FORMAT …` with its data behind it, from byte `start` on."""

    statement: str
    format: str
    start: int


@dataclass(frozen=True)
class Verdict:
    """Where a statement runs, the output format that it names itself, and whether the engine can give it piece by piece."""

    lane: Lane
    format: str | None
    streams: bool = False
    readonly: bool = False


def data_insert(text: bytes) -> DataInsert | None:
    """Recognise an insert that brings its data; None for every other statement."""
    found = _DATA_INSERT.match(text)
    if found is None:
        return None
    try:
        return DataInsert(found[1].decode(), found[2].decode(), found.end())
    except UnicodeDecodeError:
        raise Refused("the statement is not valid UTF-8", BAD_REQUEST, "BAD_ARGUMENTS") from None


class Guard:
    """Judges canonical statements. `table_functions` are the names that the engine knows."""

    def __init__(self, table_functions: Iterable[str]) -> None:
        self._denied = ({name.lower() for name in table_functions} - ALLOWED_TABLE_FUNCTIONS) | DENIED_FUNCTIONS

    def judge(self, canonical: str, database: str, parameters: Mapping[str, str] = MappingProxyType({})) -> Verdict:
        """`database` and `parameters` (some of them names of tables) are the request's.

        Raises Refused for a statement that reaches out of the data folder or changes more than data and tables.
        """
        odd: list[str] = []

        def plain(literal: re.Match[str]) -> str:
            if literal[1] is not None:
                return literal[1] if re.fullmatch(r"\w+", literal[1]) else "quoted"
            if literal[2] is None:
                return "''"
            name = parameters.get(literal[2], "")
            if not _PLAIN_NAME.match(name):
                odd.append(literal[2])
            return name if _PLAIN_NAME.match(name) else "quoted"

        text = _LITERAL.sub(plain, canonical).strip()
        for called in _CALLED.findall(text):
            if called.lower() in self._denied or re.match(r"ai[A-Z]", called):
                raise Refused(f"`{called}` is not available in this store")
        for engine in _ENGINE.findall(text):
            if not ALLOWED_ENGINES.match(engine):
                raise Refused(f"the engine `{engine}` is not available in this store")
        if found := _FORBIDDEN.search(text):
            raise Refused(f"`{found[0]}` is not available in this store")
        formats = _FORMAT.findall(text)
        format_ = formats[-1] if formats else None
        if _READS.match(text):
            lane: Lane = "read" if _TABLES.search(text) else "short"
            # In a read-only session the table of settings says that none can be changed, and clients believe it.
            readonly = lane == "read" or "system.settings" not in text or "SETTINGS" in text
            return Verdict(lane, format_, streams=text.startswith(("SELECT", "WITH")), readonly=readonly)
        for word in re.findall(r"\b\w+(?= = )", text):
            if DENIED_SETTINGS.match(word):
                raise Refused(f"the setting `{word}` cannot be changed here", READONLY, "READONLY")
        if text.startswith("INSERT INTO"):
            return Verdict("write", format_)
        if _CONTROLS.match(text):
            if odd:
                raise Refused(f"the parameter `{odd[0]}` is no plain name", BAD_REQUEST, "BAD_ARGUMENTS")
            words = set(_WORD.findall(text))
            if words & {"system", "information_schema", "INFORMATION_SCHEMA"}:
                raise Refused("the engine's own databases cannot be changed")
            if "default" in words or (database == "default" and _UNQUALIFIED.match(text)):
                raise Refused("the database `default` keeps nothing in this store: name another one")
            return Verdict("control", format_)
        raise Refused(f"statements that start with `{' '.join(text.split()[:2])}` are not available in this store")


def check_settings(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Settings of a request with valid, changeable names."""
    checked: dict[str, str] = {}
    for name, value in settings:
        if not SETTING_NAME.match(name):
            raise Refused("a setting's name is not valid", BAD_REQUEST, "BAD_ARGUMENTS")
        if DENIED_SETTINGS.match(name):
            raise Refused(f"the setting `{name}` cannot be changed here", READONLY, "READONLY")
        checked[name] = value
    return checked


def quote(value: str) -> str:
    r"""A ClickHouse string literal.

    >>> quote("a'b\\c")
    "'a\\'b\\\\c'"
    """
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0") + "'"


def escape(value: str) -> str:
    r"""A value as the text of a String parameter, which the engine reads with TSV escapes.

    >>> print(escape("a\tb\\c"))
    a\tb\\c
    """
    for plain, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"), ("\0", "\\0")):
        value = value.replace(plain, escaped)
    return value
