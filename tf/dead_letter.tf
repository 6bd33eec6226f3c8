# Events that were never acknowledged end up here, and from here in the table dead_letter, or in another
# dataset if this one must hold no names.
resource "google_pubsub_topic" "dead_letter" {
  project      = var.project_id
  name         = "${local.name}-dead-letter"
  labels       = local.labels
  kms_key_name = var.kms_key

  dynamic "message_storage_policy" {
    for_each = var.topic_regions == null ? [] : [var.topic_regions]

    content {
      allowed_persistence_regions = message_storage_policy.value
    }
  }

  depends_on = [google_project_service.this, time_sleep.keys]
}

# A topic without a subscription keeps nothing. Subscriptions without traffic expire by default, and a
# healthy pipeline has no dead letters.
resource "google_pubsub_subscription" "dead_letter" {
  project                    = var.project_id
  name                       = "${local.name}-dead-letter"
  topic                      = google_pubsub_topic.dead_letter.id
  labels                     = local.labels
  message_retention_duration = "604800s"

  bigquery_config {
    table          = "${var.project_id}.${local.undelivered.dataset_id}.${local.undelivered.table_id}"
    write_metadata = true
  }

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  depends_on = [time_sleep.grants]
}

# Pub/Sub writes an event as it is, with the name of its object. With privacy.path = "hash", that is not
# for those who read the dataset.
locals {
  undelivered = local.names_are_hashed ? {
    dataset_id = google_bigquery_table.undelivered[0].dataset_id
    table_id   = google_bigquery_table.undelivered[0].table_id
  } : { dataset_id = local.dataset_id, table_id = local.dead_letter_table }
}

resource "google_bigquery_dataset" "undelivered" {
  count = local.names_are_hashed ? 1 : 0

  project                    = var.project_id
  dataset_id                 = "${replace(local.name, "-", "_")}_undelivered"
  location                   = local.dataset_location
  description                = "Events that ${local.name} never acknowledged, with the names of their objects"
  labels                     = local.labels
  max_time_travel_hours      = var.dataset.time_travel_hours
  delete_contents_on_destroy = false

  access {
    role          = "OWNER"
    special_group = "projectOwners"
  }

  dynamic "default_encryption_configuration" {
    for_each = local.kms_key

    content {
      kms_key_name = default_encryption_configuration.value
    }
  }

  lifecycle {
    ignore_changes = [access]
  }

  depends_on = [google_project_service.this, time_sleep.keys]
}

resource "google_bigquery_table" "undelivered" {
  #checkov:skip=CKV_GCP_80: the dataset's default key encrypts it: kms_key
  #checkov:skip=CKV_GCP_121: on by default; dataset.deletion_protection switches it off before a tear-down
  count = local.names_are_hashed ? 1 : 0

  project             = var.project_id
  dataset_id          = google_bigquery_dataset.undelivered[0].dataset_id
  table_id            = "dead_letter"
  description         = "Events that were never acknowledged, as Pub/Sub writes them"
  labels              = local.labels
  schema              = jsonencode(local.tables["dead_letter"].schema.fields)
  deletion_protection = var.dataset.deletion_protection

  time_partitioning {
    type  = local.tables["dead_letter"].timePartitioning.type
    field = local.tables["dead_letter"].timePartitioning.field
  }
}
