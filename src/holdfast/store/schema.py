"""The schema, as the list of steps that made it. A step that was released never changes; a change is a new step."""

from __future__ import annotations

from holdfast.store.containers import CONTAINER_TABLES
from holdfast.store.images import IMAGE_PARENTS, IMAGE_TABLES
from holdfast.store.intents import INTENT_TABLES
from holdfast.store.networks import NETWORK_TABLES, NETWORK_TABLES_OF_ONES_OWN
from holdfast.store.volumes import VOLUME_TABLES

MIGRATIONS: tuple[str, ...] = (
    INTENT_TABLES + VOLUME_TABLES + IMAGE_TABLES + CONTAINER_TABLES + NETWORK_TABLES,
    IMAGE_PARENTS,
    NETWORK_TABLES_OF_ONES_OWN,
)
