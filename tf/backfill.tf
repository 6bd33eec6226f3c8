# What `dcm2bq backfill` needs on Dataflow: a place for rows on their way, and an identity for the
# workers. Whoever runs the command needs rights of their own: docs/BACKFILL.md.

# Rows are here between their conversion and their load job. They are patient data: they expire, and
# nothing of them is kept.
resource "google_storage_bucket" "staging" {
  #checkov:skip=CKV_GCP_62: Cloud Audit Logs record who read an object; they are switched on for the project
  #checkov:skip=CKV_GCP_78: no version of staged rows may be kept
  count = var.backfill.enabled ? 1 : 0

  project                     = var.project_id
  name                        = join("-", compact([replace(var.project_id, "/[.:]/", "-"), "dcm2bq-staging", var.suffix]))
  location                    = local.dataset_location # load jobs read from the dataset's location only
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

  depends_on = [google_project_service.this, time_sleep.keys]
}

locals {
  # Options of Apache Beam, after --.
  beam_options = compact([
    var.backfill.subnetwork == null ? "" : "--subnetwork ${coalesce(var.backfill.subnetwork, "-")}",
    var.backfill.public_addresses ? "" : "--no_use_public_ips",
    var.kms_key == null ? "" : "--dataflow_kms_key ${coalesce(var.kms_key, "-")}",
  ])
}
