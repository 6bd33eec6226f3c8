# What an apply into an empty project makes.

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

run "the_apis_are_enabled_and_stay" {
  assert {
    condition = keys(google_project_service.this) == [
      "artifactregistry.googleapis.com",
      "bigquery.googleapis.com",
      "cloudbuild.googleapis.com",
      "cloudfunctions.googleapis.com",
      "cloudresourcemanager.googleapis.com",
      "eventarc.googleapis.com",
      "iam.googleapis.com",
      "logging.googleapis.com",
      "monitoring.googleapis.com",
      "pubsub.googleapis.com",
      "run.googleapis.com",
      "storage.googleapis.com",
    ]
    error_message = "other APIs are enabled"
  }
  assert {
    condition     = !anytrue([for api in google_project_service.this : api.disable_on_destroy])
    error_message = "an API goes with the pipeline, though others may use it"
  }
}

run "the_bucket_is_private" {
  assert {
    condition = [
      google_storage_bucket.dicom["dicom"].name,
      google_storage_bucket.dicom["dicom"].location,
      google_storage_bucket.dicom["dicom"].uniform_bucket_level_access,
      google_storage_bucket.dicom["dicom"].public_access_prevention,
      google_storage_bucket.dicom["dicom"].force_destroy,
    ] == ["my-project-dicom", "us-central1", true, "enforced", false]
    error_message = "the bucket has other properties"
  }
}

run "the_function_is_built_from_the_archive" {
  assert {
    condition = google_cloudfunctions2_function.ingest.build_config[0] == merge(google_cloudfunctions2_function.ingest.build_config[0], {
      runtime         = "python313"
      entry_point     = "ingest"
      service_account = "projects/my-project/serviceAccounts/build"
    })
    error_message = "the function is built otherwise"
  }
  assert {
    condition = [
      google_cloudfunctions2_function.ingest.build_config[0].source[0].storage_source[0].bucket,
      google_cloudfunctions2_function.ingest.build_config[0].source[0].storage_source[0].object,
    ] == ["my-project-dcm2bq-source", "${filesha256(data.archive_file.source.output_path)}.zip"]
    error_message = "the function is not built from the archive, named by its content"
  }
  assert {
    condition     = google_storage_bucket_object.source.source == data.archive_file.source.output_path
    error_message = "another file is uploaded"
  }
}

run "the_function_serves_many_events_at_once_and_the_inside_alone" {
  assert {
    condition = [
      google_cloudfunctions2_function.ingest.name,
      google_cloudfunctions2_function.ingest.location,
      google_cloudfunctions2_function.ingest.service_config[0].available_memory,
      google_cloudfunctions2_function.ingest.service_config[0].available_cpu,
      google_cloudfunctions2_function.ingest.service_config[0].max_instance_request_concurrency,
      google_cloudfunctions2_function.ingest.service_config[0].min_instance_count,
      google_cloudfunctions2_function.ingest.service_config[0].max_instance_count,
      google_cloudfunctions2_function.ingest.service_config[0].timeout_seconds,
      google_cloudfunctions2_function.ingest.service_config[0].ingress_settings,
      google_cloudfunctions2_function.ingest.service_config[0].service_account_email,
      google_cloudfunctions2_function.ingest.service_config[0].vpc_connector == null,
      length(google_cloudfunctions2_function.ingest.service_config[0].secret_environment_variables),
    ] == ["dcm2bq", "us-central1", "512Mi", "1", 8, 0, 20, 120, "ALLOW_INTERNAL_ONLY", "runtime@", true, 0]
    error_message = "the function has other properties"
  }
}

run "the_environment_holds_the_configuration" {
  assert {
    condition = google_cloudfunctions2_function.ingest.service_config[0].environment_variables == tomap({
      THREADS              = "8"
      GOOGLE_CLOUD_PROJECT = "my-project"
      DCM2BQ_CONFIG = jsonencode({
        bigQuery = {
          projectId         = "my-project"
          datasetId         = "dicom"
          instancesTableId  = "instances"
          deadLetterTableId = "dead_letter"
        }
        input   = { buckets = ["my-project-dicom"] }
        events  = { reindexOnMetadataUpdate = false }
        limits  = { deadlineSeconds = 50 }
        privacy = { profile = null, options = [], shiftDays = 365, keptDescriptors = [], remove = [], hash = [], hashKeyVariable = "DCM2BQ_HASH_KEY", keyVersion = null, path = "full" }
      })
    })
    error_message = "the function is configured otherwise"
  }
  assert {
    condition     = output.config == google_cloudfunctions2_function.ingest.service_config[0].environment_variables.DCM2BQ_CONFIG
    error_message = "the output is not the configuration in force"
  }
}

run "new_buckets_are_closed_to_viewers_of_the_project" {
  assert {
    condition = { for name, binding in google_storage_bucket_iam_binding.owners_only : name => [binding.bucket, binding.role, binding.members] } == {
      "dicom/legacyBucketReader"  = ["my-project-dicom", "roles/storage.legacyBucketReader", toset(["projectOwner:my-project"])]
      "dicom/legacyObjectReader"  = ["my-project-dicom", "roles/storage.legacyObjectReader", toset(["projectOwner:my-project"])]
      "source/legacyBucketReader" = ["my-project-dcm2bq-source", "roles/storage.legacyBucketReader", toset(["projectOwner:my-project"])]
      "source/legacyObjectReader" = ["my-project-dcm2bq-source", "roles/storage.legacyObjectReader", toset(["projectOwner:my-project"])]
    }
    error_message = "viewers of the project can read a new bucket"
  }
}

run "the_function_has_no_trigger_of_its_own" {
  assert {
    condition     = length(google_cloudfunctions2_function.ingest.event_trigger) == 0
    error_message = "a redeployment can replace the function's own trigger, and lose what waits in it"
  }
}

run "there_is_a_trigger_for_each_type" {
  assert {
    condition = {
      for event, trigger in google_eventarc_trigger.event : event => [
        trigger.name, trigger.location, trigger.service_account,
        { for criterion in trigger.matching_criteria : criterion.attribute => criterion.value },
        trigger.destination[0].cloud_run_service[0].service,
        trigger.destination[0].cloud_run_service[0].region,
      ]
      } == { for event in ["finalized", "deleted", "archived"] : "dicom/${event}" => [
        "dcm2bq-${event}", "us-central1", "trigger@",
        { type = "google.cloud.storage.object.v1.${event}", bucket = "my-project-dicom" },
        "dcm2bq", "us-central1",
    ] }
    error_message = "the triggers are different"
  }
}

run "each_subscription_retries_for_long_and_has_a_dead_letter_topic" {
  assert {
    condition = {
      for event in keys(terraform_data.subscription) :
      event => trimspace(file("build/steps/${local.subscriptions[event]}"))
      } == { for event in ["archived", "deleted", "finalized"] : "dicom/${event}" => join("\n", [
        "./steps/subscription.py",
        "projects/my-project/subscriptions/none-of-dcm2bq-${event}",
        jsonencode({
          ackDeadlineSeconds       = 600
          deadLetterPolicy         = { deadLetterTopic = "projects/my-project/topics/dcm2bq-dead-letter", maxDeliveryAttempts = 100 }
          expirationPolicy         = {}
          messageRetentionDuration = "604800s"
          retryPolicy              = { maximumBackoff = "600s", minimumBackoff = "10s" }
        }),
        "the-token",
    ]) }
    error_message = "the step sets something else"
  }
  assert {
    condition     = [for grant in google_pubsub_subscription_iam_member.dead_letter : grant.role] == ["roles/pubsub.subscriber", "roles/pubsub.subscriber", "roles/pubsub.subscriber"]
    error_message = "Pub/Sub may not take messages out of a subscription"
  }
}

run "each_table_gets_the_columns_of_the_release" {
  assert {
    condition = {
      for name in keys(terraform_data.columns) : name => trimspace(file("build/steps/${name}"))
      } == { for name in ["dead_letter", "dicom_dictionary", "instances", "protocol_reference"] : name => join("\n", [
        "./steps/columns.py",
        "projects/my-project/datasets/dicom/tables/${name}",
        jsonencode(local.tables[name].schema.fields),
        "the-token",
    ]) }
    error_message = "the step adds other columns"
  }
}

run "deploying_the_function_leaves_triggers_and_subscriptions_alone" {
  variables {
    python   = "false" # which would fail the apply
    function = { memory = "1Gi" }
  }

  assert {
    condition     = google_cloudfunctions2_function.ingest.service_config[0].available_memory == "1Gi"
    error_message = "the function was not deployed"
  }
}

run "a_setting_that_drifted_is_restored" {
  variables {
    python = "./tests/python_again"
  }

  override_data {
    target = data.google_pubsub_subscription.event["dicom/deleted"]
    values = {
      ack_deadline_seconds       = 10
      message_retention_duration = "604800s"
      expiration_policy          = [{ ttl = "" }]
      retry_policy               = [{ minimum_backoff = "10s", maximum_backoff = "600s" }]
      dead_letter_policy         = [{ dead_letter_topic = "projects/my-project/topics/dcm2bq-dead-letter", max_delivery_attempts = 100 }]
    }
  }

  assert {
    condition     = local.drift["dicom/deleted"] == ["ackDeadlineSeconds"] && fileset("build/steps_again", "*") == toset(["none-of-dcm2bq-deleted"])
    error_message = "the step ran for another subscription, or not at all"
  }
}

run "and_the_next_plan_is_quiet" {
  variables {
    python = "false"
  }

  assert {
    condition     = terraform_data.subscription["dicom/deleted"].triggers_replace.settings.ackDeadlineSeconds == "600"
    error_message = "the drift is remembered, and the step runs again"
  }
}

run "dead_letters_end_up_in_the_table_and_their_subscription_never_expires" {
  assert {
    condition     = google_pubsub_topic.dead_letter.name == "dcm2bq-dead-letter"
    error_message = "the topic has another name"
  }
  assert {
    condition = [
      google_pubsub_subscription.dead_letter.topic,
      google_pubsub_subscription.dead_letter.bigquery_config[0].table,
      google_pubsub_subscription.dead_letter.bigquery_config[0].write_metadata,
      google_pubsub_subscription.dead_letter.expiration_policy[0].ttl,
      google_pubsub_subscription.dead_letter.message_retention_duration,
    ] == ["projects/my-project/topics/dcm2bq-dead-letter", "my-project.dicom.dead_letter", true, "", "604800s"]
    error_message = "the subscription of the dead-letter topic is another"
  }
}

run "the_outputs_name_what_comes_next" {
  assert {
    condition = [output.bucket, output.dataset, output.runtime_service_account, output.dead_letter_topic] == [
      "my-project-dicom", "my-project.dicom", "runtime@", "projects/my-project/topics/dcm2bq-dead-letter",
    ]
    error_message = "an output is another"
  }
  assert {
    condition     = output.function == google_cloudfunctions2_function.ingest.id
    error_message = "the output is not the function"
  }
  assert {
    condition     = output.views == { for view in local.view_names : view => "my-project.dicom.${view}" }
    error_message = "the views are others"
  }
  assert {
    condition     = output.dashboard_url == "https://console.cloud.google.com/monitoring/dashboards/builder/the-dashboard?project=my-project"
    error_message = "the dashboard is elsewhere"
  }
}
