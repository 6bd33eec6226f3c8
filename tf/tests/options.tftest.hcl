# What the variables change.

mock_provider "google" {
  source = "./tests/mocks/google"
}

mock_provider "google-beta" {
  source = "./tests/mocks/beta"
}

mock_provider "time" {}

variables {
  project_id = "my-project"
  gcloud     = "./tests/gcloud"
}

run "deployments_stand_side_by_side" {
  variables {
    suffix = "west-1"
  }

  assert {
    condition = [
      google_storage_bucket.dicom[0].name,
      google_storage_bucket.source.name,
      google_bigquery_dataset.dicom.dataset_id,
      google_cloudfunctions2_function.ingest.name,
      google_eventarc_trigger.further["deleted"].name,
      google_eventarc_trigger.further["archived"].name,
      google_pubsub_topic.dead_letter.name,
      google_pubsub_subscription.dead_letter.name,
      google_project_iam_custom_role.inserter.role_id,
      google_service_account.runtime.account_id,
      google_service_account.trigger.account_id,
      google_service_account.build.account_id,
      google_logging_metric.this["events"].name,
      google_monitoring_alert_policy.failed.display_name,
      jsondecode(google_monitoring_dashboard.this.dashboard_json).displayName,
      ] == [
      "my-project-dicom-west-1",
      "my-project-dcm2bq-source-west-1",
      "dicom_west_1",
      "dcm2bq-west-1",
      "dcm2bq-west-1-deleted",
      "dcm2bq-west-1-archived",
      "dcm2bq-west-1-dead-letter",
      "dcm2bq-west-1-dead-letter",
      "dcm2bq_west_1_inserter",
      "dcm2bq-run-west-1",
      "dcm2bq-trigger-west-1",
      "dcm2bq-build-west-1",
      "dcm2bq-west-1/events",
      "dcm2bq-west-1: events fail",
      "dcm2bq-west-1: gs://my-project-dicom-west-1",
    ]
    error_message = "something has a name that another deployment could have"
  }
  assert {
    condition     = alltrue([for labels in [google_storage_bucket.dicom[0].labels, google_bigquery_dataset.dicom.labels, google_cloudfunctions2_function.ingest.labels] : labels == tomap({ application = "dcm2bq-west-1" })])
    error_message = "the labels do not tell the deployment"
  }
}

run "a_bucket_that_exists_is_used_as_it_is" {
  variables {
    bucket = { name = "scans", existing = true }
  }

  assert {
    condition     = length(google_storage_bucket.dicom) == 0
    error_message = "a bucket is made"
  }
  assert {
    condition = [
      google_storage_bucket_iam_member.runtime.bucket,
      one(google_cloudfunctions2_function.ingest.event_trigger[0].event_filters).value,
      google_cloudfunctions2_function.ingest.event_trigger[0].trigger_region,
      google_eventarc_trigger.further["deleted"].location,
      google_cloudfunctions2_function.ingest.location,
      google_bigquery_dataset.dicom.location,
      output.bucket,
    ] == ["scans", "scans", "europe-west4", "europe-west4", "europe-west4", "europe-west4", "scans"]
    error_message = "the bucket, or its location, is not followed"
  }
  assert {
    condition     = jsondecode(output.config).input.buckets == ["scans"]
    error_message = "the function believes events of other buckets"
  }
}

run "triggers_follow_a_multi_region_and_the_function_stays_within" {
  command = plan

  variables {
    bucket = { location = "EU" }
  }

  assert {
    condition = [
      google_cloudfunctions2_function.ingest.event_trigger[0].trigger_region,
      google_eventarc_trigger.further["deleted"].location,
      google_cloudfunctions2_function.ingest.location,
      google_bigquery_dataset.dicom.location,
    ] == ["eu", "eu", "europe-west4", "EU"]
    error_message = "the locations are others"
  }
}

run "triggers_follow_a_dual_region" {
  command = plan

  variables {
    bucket = { location = "NAM4" }
  }

  assert {
    condition = [
      google_cloudfunctions2_function.ingest.event_trigger[0].trigger_region,
      google_eventarc_trigger.further["deleted"].location,
      google_cloudfunctions2_function.ingest.location,
      google_bigquery_dataset.dicom.location,
    ] == ["nam4", "nam4", "us-central1", "us-central1"]
    error_message = "the locations are others"
  }
}

run "everything_goes_into_the_region" {
  command = plan

  variables {
    region = "asia-southeast1"
  }

  assert {
    condition = [
      google_storage_bucket.dicom[0].location,
      google_cloudfunctions2_function.ingest.event_trigger[0].trigger_region,
      google_cloudfunctions2_function.ingest.location,
      google_bigquery_dataset.dicom.location,
      google_storage_bucket.source.location,
    ] == ["asia-southeast1", "asia-southeast1", "asia-southeast1", "asia-southeast1", "asia-southeast1"]
    error_message = "the locations are others"
  }
}

run "metadata_updates_have_a_trigger_on_request" {
  variables {
    reindex_on_metadata_update = true
  }

  assert {
    condition     = keys(google_eventarc_trigger.further) == ["archived", "deleted", "metadataUpdated"] && google_eventarc_trigger.further["metadataUpdated"].name == "dcm2bq-metadataupdated"
    error_message = "metadataUpdated has no trigger"
  }
  assert {
    condition     = keys(terraform_data.subscription) == ["archived", "deleted", "finalized", "metadataUpdated"]
    error_message = "the subscription of metadataUpdated is not completed"
  }
  assert {
    condition     = jsondecode(output.config).events.reindexOnMetadataUpdate
    error_message = "the function ignores metadataUpdated"
  }
}

run "further_options_hide_nothing_that_is_set_here" {
  variables {
    config = {
      bigQuery   = { timeoutSeconds = 20 }
      limits     = { deadlineSeconds = 90, depth = 100 }
      jsonOutput = { ignorePrivate = true }
      input      = { namePattern = "." }
    }
    function = { timeout_seconds = 100, concurrency = 16, cpu = "2", memory = "1Gi", min_instances = 1, max_instances = 5 }
  }

  assert {
    condition = output.config == jsonencode({
      bigQuery = {
        projectId         = "my-project"
        datasetId         = "dicom"
        instancesTableId  = "instances"
        deadLetterTableId = "dead_letter"
        timeoutSeconds    = 20
      }
      events     = { reindexOnMetadataUpdate = false }
      input      = { namePattern = ".", buckets = ["my-project-dicom"] }
      jsonOutput = { ignorePrivate = true }
      limits     = { deadlineSeconds = 90, depth = 100 }
      privacy    = { profile = null, remove = [], hash = [], hashKeyVariable = "DCM2BQ_HASH_KEY", keyVersion = null }
    })
    error_message = "the configuration is another"
  }
  assert {
    condition = [
      google_cloudfunctions2_function.ingest.service_config[0].environment_variables.THREADS,
      google_cloudfunctions2_function.ingest.service_config[0].max_instance_request_concurrency,
      google_cloudfunctions2_function.ingest.service_config[0].available_cpu,
      google_cloudfunctions2_function.ingest.service_config[0].available_memory,
      google_cloudfunctions2_function.ingest.service_config[0].min_instance_count,
      google_cloudfunctions2_function.ingest.service_config[0].max_instance_count,
      google_cloudfunctions2_function.ingest.service_config[0].timeout_seconds,
    ] == ["16", 16, "2", "1Gi", 1, 5, 100]
    error_message = "the function has other properties"
  }
}

run "a_key_of_the_owners_encrypts_what_holds_data" {
  variables {
    kms_key = "projects/p/locations/us/keyRings/r/cryptoKeys/k"
  }

  assert {
    condition = [
      google_storage_bucket.dicom[0].encryption[0].default_kms_key_name,
      google_bigquery_dataset.dicom.default_encryption_configuration[0].kms_key_name,
      google_pubsub_topic.dead_letter.kms_key_name,
    ] == [var.kms_key, var.kms_key, var.kms_key]
    error_message = "something that holds data is under another key"
  }
  assert {
    condition     = contains(keys(google_project_service.this), "cloudkms.googleapis.com")
    error_message = "the API of the key is not enabled"
  }
}

run "traffic_can_leave_by_a_connector" {
  command = plan

  variables {
    vpc_connector = { id = "projects/p/locations/l/connectors/c" }
  }

  assert {
    condition = [
      google_cloudfunctions2_function.ingest.service_config[0].vpc_connector,
      google_cloudfunctions2_function.ingest.service_config[0].vpc_connector_egress_settings,
    ] == ["projects/p/locations/l/connectors/c", "ALL_TRAFFIC"]
    error_message = "the traffic leaves otherwise"
  }
}

run "or_by_a_connector_to_private_addresses_alone" {
  command = plan

  variables {
    vpc_connector = { id = "projects/p/locations/l/connectors/c", all_traffic = false }
  }

  assert {
    condition     = google_cloudfunctions2_function.ingest.service_config[0].vpc_connector_egress_settings == "PRIVATE_RANGES_ONLY"
    error_message = "the traffic leaves otherwise"
  }
}
