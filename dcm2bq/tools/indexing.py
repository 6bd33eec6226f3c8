"""What the commands that write rows need first: a table and a bucket that fit, and the handler."""

from dcm2bq import dicom, schema, secret_manager
from dcm2bq.bigquery.dataset import Dataset
from dcm2bq.bigquery.row_sink import RowSink
from dcm2bq.config import Config
from dcm2bq.errors import ConfigError
from dcm2bq.gcs.store import Store
from dcm2bq.handler import Handler
from dcm2bq.schema.compare import compare


def handler(dataset: Dataset, config: Config, sink: RowSink) -> Handler:
    """Return the function's handler, writing to `sink`.

    Raises `ConfigError` if the table does not accept its rows; see `require_table`.
    """
    require_table(dataset, config)
    return Handler(config, Store(config), sink, bounds_archives=False)


def require_table(dataset: Dataset, config: Config) -> None:
    """Raise `ConfigError` unless `instances` exists and accepts rows of this configuration.

    Rows made with other privacy options must not be mixed: the old ones would stay readable. Nor
    must rows made with another key: their pseudonyms would not meet. If names are hashed, the
    table must be known to have this key: with another one, no object would seem to have its row.
    """
    secret_manager.provide_hash_key(config.privacy)
    dicom.privacy_rules(config.privacy)
    definition = schema.load(config, dataset.project)[0]  # `instances` is created first
    table = dataset.existing_table(definition.name)
    if refusals := compare(table, definition).refusals:
        raise ConfigError(
            "\n".join(f"{definition.qualified_name}: {refusal}" for refusal in refusals)
        )
    if config.privacy.hashes_paths and schema.KEY_LABEL not in table.get("labels", {}):
        raise ConfigError(
            f"{definition.qualified_name}: has no label {schema.KEY_LABEL}, so that nothing shows "
            "whether its names were hashed with this key: run dcm2bq init with the function's key"
        )


def require_bucket(bucket: str, config: Config) -> None:
    """Raise `ConfigError` for a bucket whose events the function would reject."""
    if not config.input.admits(bucket):
        raise ConfigError(f"gs://{bucket}: is not one of input.buckets")
