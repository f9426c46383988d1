"""Everything that a first start needs and a later one finds: Kafka's jars, the embedding table, the class-data archive."""

from collections.abc import Callable

from adapters.broker import ensure_archive
from adapters.embedding import embedding_path, ensure_embedding
from adapters.java import find_java
from adapters.kafka_jars import ensure_jars
from adapters.settings import Settings


def prepare(settings: Settings, say: Callable[[str], None]) -> None:
    """Fetch and build what is not there yet; quick when all is."""
    if settings.embedded_kafka:
        java = find_java(settings.java_runtime, settings.java_home)
        ensure_jars(settings, java, say)
        ensure_archive(settings, java, say)
    if not embedding_path(settings).exists():
        say("building the embedding table from the installed wordllama package, about 10 s")
    ensure_embedding(settings)
