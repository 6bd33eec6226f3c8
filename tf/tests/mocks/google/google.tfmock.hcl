# What Google would fill in.

mock_data "google_client_config" {
  defaults = { access_token = "the-token" }
}

mock_data "google_pubsub_subscription" {
  defaults = {
    ack_deadline_seconds       = 600
    message_retention_duration = "604800s"
    expiration_policy          = [{ ttl = "" }]
    retry_policy               = [{ minimum_backoff = "10s", maximum_backoff = "600s" }]
    dead_letter_policy         = [{ dead_letter_topic = "projects/my-project/topics/dcm2bq-dead-letter", max_delivery_attempts = 100 }]
  }
}

mock_data "google_project" {
  defaults = { number = "123456789012" }
}

mock_data "google_storage_project_service_account" {
  defaults = { member = "serviceAccount:storage-agent" }
}

mock_data "google_bigquery_default_service_account" {
  defaults = { member = "serviceAccount:bigquery-agent" }
}

mock_data "google_storage_bucket" {
  defaults = {
    location               = "EUROPE-WEST4"
    project_number         = 123456789012
    hierarchical_namespace = []
  }
}

mock_data "google_bigquery_dataset" {
  defaults = { location = "europe-west4", access = [] }
}

mock_resource "google_cloudfunctions2_function" {
  defaults = {
    update_time    = "2024-01-01T00:00:00Z"
    service_config = { service = "projects/my-project/locations/us-central1/services/dcm2bq", uri = "https://dcm2bq-x-uc.a.run.app" }
  }
}

mock_resource "google_project_service" {
  defaults = { id = "my-project/mocked.googleapis.com" }
}

mock_resource "google_project_service_identity" {
  defaults = { member = "serviceAccount:some-agent" }
}

mock_resource "google_pubsub_topic" {
  defaults = { id = "projects/my-project/topics/dcm2bq-dead-letter" }
}

mock_resource "google_project_iam_custom_role" {
  defaults = { id = "projects/my-project/roles/dcm2bq_inserter" }
}

mock_resource "google_bigquery_data_transfer_config" {
  defaults = { name = "projects/123456789012/locations/europe-west4/transferConfigs/the-refresh" }
}

mock_resource "google_monitoring_dashboard" {
  defaults = { id = "projects/123456789012/dashboards/the-dashboard" }
}

override_resource {
  target = google_project_iam_custom_role.loader
  values = { id = "projects/my-project/roles/dcm2bq_loader" }
}

override_resource {
  target = google_service_account.this["runtime"]
  values = { email = "runtime@", member = "serviceAccount:runtime" }
}

override_resource {
  target = google_service_account.this["trigger"]
  values = { email = "trigger@", member = "serviceAccount:trigger" }
}

override_resource {
  target = google_service_account.this["build"]
  values = { id = "projects/my-project/serviceAccounts/build", email = "build@", member = "serviceAccount:build" }
}

override_resource {
  target = google_service_account.this["backfill"]
  values = { email = "backfill@", member = "serviceAccount:backfill" }
}

override_resource {
  target = google_service_account.this["refresh"]
  values = { email = "refresh@", member = "serviceAccount:refresh" }
}
