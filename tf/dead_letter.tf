# Events that were never acknowledged end up here, and from here in the table dead_letter.
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
    table          = "${var.project_id}.${local.dataset_id}.${local.dead_letter_table}"
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
