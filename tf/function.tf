locals {
  privacy = {
    profile         = var.privacy.profile
    options         = sort(var.privacy.options)
    shiftDays       = var.privacy.shift_days
    keptDescriptors = sort(var.privacy.kept_descriptors)
    remove          = var.privacy.remove
    hash            = var.privacy.hash
    hashKeyVariable = "DCM2BQ_HASH_KEY"
    keyVersion      = try(var.privacy.hash_key.version, null)
    path            = var.privacy.path
  }
  names_are_hashed = var.privacy.path == "hash"
  privacy_is_on    = var.privacy.profile != null || length(var.privacy.remove) + length(var.privacy.hash) > 0 || local.names_are_hashed

  # As Privacy.fingerprint in dcm2bq/config.py: options of the profile count only if they change rows. jsonencode writes
  # it as Python's json does, because validations and hashes admit nothing that it would escape.
  privacy_counts = {
    options         = length(var.privacy.options) > 0
    shiftDays       = contains(var.privacy.options, "retainLongitudinalModifiedDates")
    keptDescriptors = length(var.privacy.kept_descriptors) > 0
    path            = local.names_are_hashed
  }
  privacy_that_counts = {
    for name, value in merge(local.privacy, { keptDescriptors = sort([for text in var.privacy.kept_descriptors : sha256(text)]) }) :
    name => value if lookup(local.privacy_counts, name, true)
  }
  privacy_fingerprint = substr(sha256(jsonencode(local.privacy_that_counts)), 0, 16)
  privacy_label       = local.privacy_is_on ? { dcm2bq_privacy = local.privacy_fingerprint } : {}

  # What Terraform sets takes precedence over var.config, within each group: neither hides the other.
  config_here = {
    bigQuery = {
      projectId         = var.project_id
      datasetId         = local.dataset_id
      instancesTableId  = var.dataset.instances_table_id
      deadLetterTableId = var.dataset.dead_letter_table_id
    }
    input   = { buckets = values(local.bucket_names) } # events of other buckets are forged
    events  = { reindexOnMetadataUpdate = var.reindex_on_metadata_update }
    limits  = { deadlineSeconds = try(tonumber(var.config.limits.deadlineSeconds), 50) }
    privacy = local.privacy
  }
  config = {
    for group in setunion(keys(var.config), keys(local.config_here)) :
    group => merge(try(var.config[group], {}), try(local.config_here[group], {}))
  }

  # The function gets the key in its environment; commands and Dataflow's workers read it by name.
  config_of_commands = merge(local.config, {
    privacy = merge(local.config.privacy, {
      for key in var.privacy.hash_key[*] :
      "hashKeySecret" => "projects/${var.project_id}/secrets/${key.secret}/versions/${key.version}"
    })
  })
}

resource "google_cloudfunctions2_function" "ingest" {
  project      = var.project_id
  name         = local.name
  location     = var.region
  description  = "Headers of the DICOM objects in ${local.all_buckets} to BigQuery"
  labels       = merge(local.labels, { dcm2bq_version = replace(local.release, ".", "-") }) # labels have no dots
  kms_key_name = var.kms_key

  build_config {
    runtime           = "python313"
    entry_point       = "ingest"
    service_account   = local.build_account
    worker_pool       = var.build.worker_pool
    docker_repository = one(concat([for repository in google_artifact_registry_repository.images : repository.id], compact([var.build.docker_repository])))

    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    service_account_email            = local.emails.runtime
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
    direct_vpc_egress                = var.vpc == null ? null : var.vpc.all_traffic ? "VPC_EGRESS_ALL_TRAFFIC" : "VPC_EGRESS_PRIVATE_RANGES_ONLY"

    dynamic "direct_vpc_network_interface" {
      for_each = var.vpc[*]

      content {
        network    = direct_vpc_network_interface.value.network
        subnetwork = direct_vpc_network_interface.value.subnetwork
        tags       = direct_vpc_network_interface.value.tags
      }
    }

    environment_variables = {
      DCM2BQ_CONFIG        = jsonencode(local.config)
      GOOGLE_CLOUD_PROJECT = var.project_id                     # joins the log lines of a trace
      THREADS              = tostring(var.function.concurrency) # the default is 4 per core: further events would wait
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

  # The function has no trigger of its own: see triggers.tf.

  lifecycle {
    precondition {
      condition     = alltrue([for key, number in local.other_projects : local.buckets[key].via == "pubsub"])
      error_message = "In another project: ${join(", ", [for key, number in local.other_projects : local.bucket_names[key]])}. Eventarc delivers only the events of buckets in its own project: set via = \"pubsub\" for the bucket in buckets."
    }
    precondition {
      condition     = length(local.can_rename) == 0
      error_message = "With a hierarchical namespace: ${join(", ", local.can_rename)}. Folders can be renamed without an event for the objects in them. Set folders_are_never_renamed for the bucket if nobody ever renames one."
    }
    precondition {
      condition     = length(distinct(values(local.bucket_names))) == length(local.bucket_names)
      error_message = "A bucket is in buckets twice: ${join(", ", values(local.bucket_names))}. Each event would be delivered twice."
    }
    precondition {
      condition     = alltrue([for key, location in local.bucket_locations : location == lower(coalesce(local.buckets[key].location, location))])
      error_message = "A bucket has another location than is set for it: ${join(", ", [for key, location in local.bucket_locations : "${local.bucket_names[key]} is in ${upper(location)}"])}. Correct location or leave it out: triggers are created where the bucket is."
    }
    precondition {
      condition     = var.kms_key == null || alltrue([for location in concat([var.region], var.dataset.existing ? [] : [local.dataset_location], [for bucket in google_storage_bucket.dicom : bucket.location]) : lower(location) == local.kms_location])
      error_message = "The key kms_key is in ${coalesce(local.kms_location, "-")}: a key encrypts only what is in its own location, so region, bucket.location and dataset.location must be the same."
    }
  }

  # The tables, with the columns of this release, exist before the first row.
  depends_on = [time_sleep.grants, time_sleep.keys, terraform_data.columns, terraform_data.existing_table]
}
