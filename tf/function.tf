locals {
  # As Privacy in dcm2bq/config.py: every option. jsonencode writes it as Python's json does, since
  # the validations let nothing through that it would escape.
  privacy = {
    profile         = var.privacy.profile
    remove          = var.privacy.remove
    hash            = var.privacy.hash
    hashKeyVariable = "DCM2BQ_HASH_KEY"
    keyVersion      = try(var.privacy.hash_key.version, null)
  }
  privacy_is_on       = var.privacy.profile != null || length(var.privacy.remove) + length(var.privacy.hash) > 0
  privacy_fingerprint = substr(sha256(jsonencode(local.privacy)), 0, 16)
  privacy_label       = local.privacy_is_on ? { dcm2bq_privacy = local.privacy_fingerprint } : {}

  # What Terraform sets, over what var.config adds; group by group, so that neither hides the other.
  config_here = {
    bigQuery = {
      projectId         = var.project_id
      datasetId         = google_bigquery_dataset.dicom.dataset_id
      instancesTableId  = var.dataset.instances_table_id
      deadLetterTableId = var.dataset.dead_letter_table_id
    }
    input   = { buckets = [local.bucket] } # events of any other are forged
    events  = { reindexOnMetadataUpdate = var.reindex_on_metadata_update }
    limits  = { deadlineSeconds = try(tonumber(var.config.limits.deadlineSeconds), 50) }
    privacy = local.privacy
  }
  config = {
    for group in setunion(keys(var.config), keys(local.config_here)) :
    group => merge(try(var.config[group], {}), try(local.config_here[group], {}))
  }
}

resource "google_cloudfunctions2_function" "ingest" {
  project     = var.project_id
  name        = local.name
  location    = local.region
  description = "Headers of the DICOM objects in gs://${local.bucket} to BigQuery"
  labels      = local.labels

  build_config {
    runtime         = "python313"
    entry_point     = "ingest"
    service_account = google_service_account.build.id

    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    service_account_email            = google_service_account.runtime.email
    available_memory                 = var.function.memory
    available_cpu                    = var.function.cpu
    max_instance_request_concurrency = var.function.concurrency
    min_instance_count               = var.function.min_instances
    max_instance_count               = var.function.max_instances
    timeout_seconds                  = var.function.timeout_seconds
    ingress_settings                 = "ALLOW_INTERNAL_ONLY"
    all_traffic_on_latest_revision   = true
    vpc_connector                    = try(var.vpc_connector.id, null)
    vpc_connector_egress_settings    = var.vpc_connector == null ? null : var.vpc_connector.all_traffic ? "ALL_TRAFFIC" : "PRIVATE_RANGES_ONLY"

    environment_variables = {
      DCM2BQ_CONFIG        = jsonencode(local.config)
      GOOGLE_CLOUD_PROJECT = var.project_id                     # joins the log lines of a trace
      THREADS              = tostring(var.function.concurrency) # else events wait beyond 4 a core
    }

    dynamic "secret_environment_variables" {
      for_each = var.privacy.hash_key[*]

      content {
        key        = local.privacy.hashKeyVariable
        project_id = var.project_id
        secret     = secret_environment_variables.value.secret
        version    = secret_environment_variables.value.version
      }
    }
  }

  # A function has one trigger of its own, for one type of event: triggers.tf adds the others.
  event_trigger {
    trigger_region        = local.bucket_location
    event_type            = "google.cloud.storage.object.v1.finalized"
    retry_policy          = "RETRY_POLICY_RETRY" # else an event that fails once is lost
    service_account_email = google_service_account.trigger.email

    event_filters {
      attribute = "bucket"
      value     = local.bucket
    }
  }

  lifecycle {
    precondition {
      condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", local.region))
      error_message = "The bucket's location, ${upper(local.bucket_location)}, is no region, and tells none for the function: set region."
    }
  }

  # The tables are there before the first row.
  depends_on = [time_sleep.grants, google_bigquery_table.table]
}
