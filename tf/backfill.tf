# What `dcm2bq backfill` needs on Dataflow: a place for the rows on their way, and an identity for the
# workers. Whoever runs the command needs rights of their own: docs/BACKFILL.md.
locals {
  backfills = var.backfill.enabled ? 1 : 0
}

# Rows lie here between their conversion and their load job. They are patient data: they go by
# themselves, for good.
resource "google_storage_bucket" "staging" {
  #checkov:skip=CKV_GCP_62: Cloud Audit Logs tell who read an object, and are switched on for the project
  #checkov:skip=CKV_GCP_78: no version of what is staged may be kept
  count = local.backfills

  project                     = var.project_id
  name                        = join("-", compact([replace(var.project_id, "/[.:]/", "-"), "dcm2bq-staging", var.suffix]))
  location                    = local.dataset_location # load jobs read from nowhere else
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true

  versioning {
    enabled = false
  }

  soft_delete_policy {
    retention_duration_seconds = 0
  }

  lifecycle_rule {
    condition {
      age = var.backfill.staging_days
    }
    action {
      type = "Delete"
    }
  }

  dynamic "encryption" {
    for_each = local.kms_key

    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.this, google_kms_crypto_key_iam_member.agents]
}

resource "google_service_account" "backfill" {
  count = local.backfills

  project      = var.project_id
  account_id   = join("-", compact(["dcm2bq-backfill", var.suffix]))
  display_name = "${local.name}: what Dataflow's workers run as"
  depends_on   = [google_project_service.this]
}

resource "google_storage_bucket_iam_member" "backfill" {
  count = local.backfills

  bucket = local.bucket
  role   = "roles/storage.objectViewer"
  member = google_service_account.backfill[0].member
}

resource "google_storage_bucket_iam_member" "backfill_staging" {
  count = local.backfills

  bucket = google_storage_bucket.staging[0].name
  role   = "roles/storage.objectUser"
  member = google_service_account.backfill[0].member
}

# Load jobs add rows; what is in the table already is read from the run's own.
resource "google_project_iam_custom_role" "loader" {
  count = local.backfills

  project     = var.project_id
  role_id     = "${local.snake_name}_loader"
  title       = "${local.name}: load rows"
  description = "Load rows into the tables of a dataset, and read what is there."
  permissions = [
    "bigquery.datasets.get",
    "bigquery.tables.get",
    "bigquery.tables.getData",
    "bigquery.tables.updateData",
  ]
  depends_on = [google_project_service.this]
}

resource "google_bigquery_dataset_iam_member" "backfill" {
  count = local.backfills

  project    = var.project_id
  dataset_id = google_bigquery_dataset.dicom.dataset_id
  role       = google_project_iam_custom_role.loader[0].id
  member     = google_service_account.backfill[0].member
}

# Dataflow's control of its workers, and load jobs, are granted on nothing smaller than the project.
resource "google_project_iam_member" "backfill" {
  for_each = var.backfill.enabled ? toset(["roles/bigquery.jobUser", "roles/dataflow.worker"]) : toset([])

  project = var.project_id
  role    = each.key
  member  = google_service_account.backfill[0].member
}
