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
  region     = "us-central1"
  python     = "./tests/python"
}

run "deployments_stand_side_by_side" {
  variables {
    suffix = "west-1"
  }

  assert {
    condition = [
      google_storage_bucket.dicom["dicom"].name,
      google_storage_bucket.source.name,
      google_bigquery_dataset.dicom[0].dataset_id,
      google_cloudfunctions2_function.ingest.name,
      google_eventarc_trigger.event["dicom/deleted"].name,
      google_eventarc_trigger.event["dicom/archived"].name,
      google_pubsub_topic.dead_letter.name,
      google_pubsub_subscription.dead_letter.name,
      google_project_iam_custom_role.inserter[0].role_id,
      google_service_account.this["runtime"].account_id,
      google_service_account.this["trigger"].account_id,
      google_service_account.this["build"].account_id,
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
    condition     = alltrue([for labels in [google_storage_bucket.dicom["dicom"].labels, google_bigquery_dataset.dicom[0].labels, google_storage_bucket.source.labels] : labels == tomap({ application = "dcm2bq-west-1" })])
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
      google_storage_bucket_iam_member.this["runtime/dicom"].bucket,
      one([for criterion in google_eventarc_trigger.event["dicom/finalized"].matching_criteria : criterion.value if criterion.attribute == "bucket"]),
      google_eventarc_trigger.event["dicom/deleted"].location,
      output.bucket,
    ] == ["scans", "scans", "europe-west4", "scans"]
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
    region = "europe-west4"
    bucket = { location = "EU" }
  }

  assert {
    condition = [
      google_eventarc_trigger.event["dicom/deleted"].location,
      google_cloudfunctions2_function.ingest.location,
      google_bigquery_dataset.dicom[0].location,
    ] == ["eu", "europe-west4", "EU"]
    error_message = "the locations are different"
  }
}

run "triggers_follow_a_dual_region" {
  command = plan

  variables {
    bucket = { location = "NAM4" }
  }

  assert {
    condition = [
      google_eventarc_trigger.event["dicom/deleted"].location,
      google_cloudfunctions2_function.ingest.location,
      google_bigquery_dataset.dicom[0].location,
    ] == ["nam4", "us-central1", "us-central1"]
    error_message = "the locations are different"
  }
}

run "everything_goes_into_the_region" {
  command = plan

  variables {
    region = "asia-southeast1"
  }

  assert {
    condition = [
      google_storage_bucket.dicom["dicom"].location,
      google_cloudfunctions2_function.ingest.location,
      google_bigquery_dataset.dicom[0].location,
      google_storage_bucket.source.location,
    ] == ["asia-southeast1", "asia-southeast1", "asia-southeast1", "asia-southeast1"]
    error_message = "the locations are different"
  }
}

run "metadata_updates_have_a_trigger_on_request" {
  variables {
    reindex_on_metadata_update = true
  }

  assert {
    condition     = keys(google_eventarc_trigger.event) == ["dicom/archived", "dicom/deleted", "dicom/finalized", "dicom/metadataUpdated"] && google_eventarc_trigger.event["dicom/metadataUpdated"].name == "dcm2bq-metadataupdated"
    error_message = "metadataUpdated has no trigger"
  }
  assert {
    condition     = keys(terraform_data.subscription) == ["dicom/archived", "dicom/deleted", "dicom/finalized", "dicom/metadataUpdated"]
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
      privacy    = { profile = null, options = [], shiftDays = 365, keptDescriptors = [], remove = [], hash = [], hashKeyVariable = "DCM2BQ_HASH_KEY", keyVersion = null, path = "full" }
    })
    error_message = "the configuration is different"
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

run "a_key_encrypts_everything" {
  variables {
    kms_key  = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
    backfill = { enabled = true }
    buckets  = { dicom = {}, ct = { via = "pubsub" } }
  }

  assert {
    condition = toset(concat(
      [for bucket in concat(values(google_storage_bucket.dicom), google_storage_bucket.staging, [google_storage_bucket.source]) : bucket.encryption[0].default_kms_key_name],
      [
        google_bigquery_dataset.dicom[0].default_encryption_configuration[0].kms_key_name,
        google_pubsub_topic.dead_letter.kms_key_name,
        google_pubsub_topic.objects["ct"].kms_key_name,
        google_cloudfunctions2_function.ingest.kms_key_name,
      ],
      [for repository in google_artifact_registry_repository.images : repository.kms_key_name],
      [for config in google_eventarc_google_channel_config.this : config.crypto_key_name],
    )) == toset([var.kms_key])
    error_message = "something is under no key, or under another"
  }
  assert {
    condition = [for type, declared in {
      bucket = [for file in fileset(path.module, "*.tf") : regexall("resource \"google_storage_bucket\" ", file("${path.module}/${file}"))]
      topic  = [for file in fileset(path.module, "*.tf") : regexall("resource \"google_pubsub_topic\" ", file("${path.module}/${file}"))]
    } : "${type} ${length(flatten(declared))}" if length(local.names) > 0] == ["bucket 3", "topic 2"]
    error_message = "there is a bucket or a topic that the assertion above does not look at"
  }
  assert {
    condition = [
      length(google_artifact_registry_repository.images),
      length(google_eventarc_google_channel_config.this),
      google_cloudfunctions2_function.ingest.build_config[0].docker_repository == one([for repository in google_artifact_registry_repository.images : repository.id]),
    ] == [1, 1, true]
    error_message = "the images, or Eventarc's events, are not under the key"
  }
  assert {
    condition     = contains(keys(google_project_service.this), "cloudkms.googleapis.com")
    error_message = "the API of the key is not enabled"
  }
  assert {
    condition     = strcontains(output.backfill, "--dataflow_kms_key projects/p/locations/us-central1/keyRings/r/cryptoKeys/k")
    error_message = "Dataflow stores its state under another key"
  }
}

run "the_key_can_be_granted_by_others" {
  command = plan

  variables {
    kms_key    = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
    kms_grants = false
  }

  assert {
    condition     = length(google_kms_crypto_key_iam_member.agents) == 0 && google_storage_bucket.source.encryption[0].default_kms_key_name == var.kms_key
    error_message = "the key is granted, or not used"
  }
}

run "traffic_can_leave_by_a_subnetwork" {
  command = plan

  variables {
    vpc = { subnetwork = "projects/host/regions/us-central1/subnetworks/s", tags = ["dcm2bq"] }
  }

  assert {
    condition = jsonencode([
      google_cloudfunctions2_function.ingest.service_config[0].direct_vpc_egress,
      google_cloudfunctions2_function.ingest.service_config[0].direct_vpc_network_interface[0].subnetwork,
      google_cloudfunctions2_function.ingest.service_config[0].direct_vpc_network_interface[0].tags,
    ]) == jsonencode(["VPC_EGRESS_ALL_TRAFFIC", "projects/host/regions/us-central1/subnetworks/s", ["dcm2bq"]])
    error_message = "the traffic leaves otherwise"
  }
}

run "builds_can_be_private_and_dataflow_too" {
  variables {
    build    = { worker_pool = "projects/p/locations/us-central1/workerPools/w", docker_repository = "projects/p/locations/us-central1/repositories/r" }
    backfill = { enabled = true, subnetwork = "regions/us-central1/subnetworks/s", public_addresses = false }
  }

  assert {
    condition = [
      google_cloudfunctions2_function.ingest.build_config[0].worker_pool,
      google_cloudfunctions2_function.ingest.build_config[0].docker_repository,
      google_artifact_registry_repository.images == {},
    ] == [var.build.worker_pool, var.build.docker_repository, true]
    error_message = "the function is built elsewhere"
  }
  assert {
    condition     = endswith(output.backfill, "--service-account backfill@ -- --subnetwork regions/us-central1/subnetworks/s --no_use_public_ips")
    error_message = "the workers are in another network, or have public addresses"
  }
}

run "guard_rails_of_storage_and_costs" {
  variables {
    topic_regions = ["us-central1"]
    request_logs  = false
    budget        = { billing_account = "012345-6789AB-CDEF01", monthly_amount = 500 }
    dataset       = { time_travel_hours = 48, storage_billing = "PHYSICAL" }
    alerts        = { emails = ["radiology@example.org"] }
  }

  assert {
    condition     = google_pubsub_topic.dead_letter.message_storage_policy[0].allowed_persistence_regions == toset(["us-central1"])
    error_message = "dead letters may be stored elsewhere"
  }
  assert {
    condition     = google_logging_project_exclusion.requests[0].filter == "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"dcm2bq\" AND log_id(\"run.googleapis.com/requests\") AND httpRequest.status<400"
    error_message = "other log lines are excluded"
  }
  assert {
    condition     = [google_bigquery_dataset.dicom[0].max_time_travel_hours, google_bigquery_dataset.dicom[0].storage_billing_model] == ["48", "PHYSICAL"]
    error_message = "the dataset is stored otherwise"
  }
  assert {
    condition = [
      google_billing_budget.this["project"].amount[0].specified_amount[0].units,
      google_billing_budget.this["project"].budget_filter[0].projects == toset(["projects/123456789012"]),
      google_billing_budget.this["project"].threshold_rules[*].threshold_percent == tolist([0.5, 0.9, 1]),
      length(google_billing_budget.this["project"].all_updates_rule[0].monitoring_notification_channels),
    ] == ["500", true, true, 1]
    error_message = "the budget is different"
  }
}

run "labels_are_everywhere" {
  variables {
    labels   = { cost_center = "radiology" }
    kms_key  = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
    alerts   = { emails = ["radiology@example.org"], silence_hours = 12 }
    backfill = { enabled = true }
    buckets  = { dicom = {}, ct = { via = "pubsub" } }
  }

  assert {
    condition = alltrue([for labels in concat(
      values(google_storage_bucket.dicom)[*].labels,
      google_storage_bucket.staging[*].labels,
      [google_storage_bucket.source.labels, google_bigquery_dataset.dicom[0].labels, google_cloudfunctions2_function.ingest.labels],
      [google_pubsub_topic.dead_letter.labels, google_pubsub_subscription.dead_letter.labels],
      [google_pubsub_topic.objects["ct"].labels, google_pubsub_subscription.objects["ct"].labels],
      [for resource in local.created_views : resource.labels],
      [for step in terraform_data.columns : step.triggers_replace.labels], # which sets those of the tables
      [for resource in google_eventarc_trigger.event : resource.labels],
      [for resource in google_artifact_registry_repository.images : resource.labels],
      [for resource in google_monitoring_notification_channel.email : resource.user_labels],
      google_monitoring_alert_policy.silence[*].user_labels,
      [for policy in [
        google_monitoring_alert_policy.dead_letters, google_monitoring_alert_policy.exhausted, google_monitoring_alert_policy.failed,
        google_monitoring_alert_policy.oldest_unacked, google_monitoring_alert_policy.dead_letters_stuck,
      ] : policy.user_labels],
    ) : labels.cost_center == "radiology" && labels.application == "dcm2bq"])
    error_message = "something has no labels"
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
