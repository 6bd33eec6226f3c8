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
  gcloud     = "./tests/gcloud"
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
      google_storage_bucket.dicom[0].name,
      google_storage_bucket.dicom[0].location,
      google_storage_bucket.dicom[0].uniform_bucket_level_access,
      google_storage_bucket.dicom[0].public_access_prevention,
      google_storage_bucket.dicom[0].force_destroy,
    ] == ["my-project-dicom", "US", true, "enforced", false]
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
        privacy = { profile = null, remove = [], hash = [], hashKeyVariable = "DCM2BQ_HASH_KEY", keyVersion = null }
      })
    })
    error_message = "the function is configured otherwise"
  }
  assert {
    condition     = output.config == google_cloudfunctions2_function.ingest.service_config[0].environment_variables.DCM2BQ_CONFIG
    error_message = "the output is not the configuration in force"
  }
}

run "there_is_a_trigger_for_each_type" {
  assert {
    condition = google_cloudfunctions2_function.ingest.event_trigger[0] == merge(google_cloudfunctions2_function.ingest.event_trigger[0], {
      trigger_region        = "us"
      event_type            = "google.cloud.storage.object.v1.finalized"
      retry_policy          = "RETRY_POLICY_RETRY"
      service_account_email = "trigger@"
    })
    error_message = "the function's own trigger is another"
  }
  assert {
    condition = { for each in google_cloudfunctions2_function.ingest.event_trigger[0].event_filters : each.attribute => each.value } == {
      bucket = "my-project-dicom"
    }
    error_message = "the function's own trigger filters otherwise"
  }
  assert {
    condition = {
      for event, trigger in google_eventarc_trigger.further : event => [
        trigger.name, trigger.location, trigger.service_account,
        { for each in trigger.matching_criteria : each.attribute => each.value },
        trigger.destination[0].cloud_run_service[0].service,
        trigger.destination[0].cloud_run_service[0].region,
      ]
      } == {
      deleted = [
        "dcm2bq-deleted", "us", "trigger@",
        { type = "google.cloud.storage.object.v1.deleted", bucket = "my-project-dicom" },
        "dcm2bq", "us-central1",
      ]
      archived = [
        "dcm2bq-archived", "us", "trigger@",
        { type = "google.cloud.storage.object.v1.archived", bucket = "my-project-dicom" },
        "dcm2bq", "us-central1",
      ]
    }
    error_message = "the further triggers are others"
  }
}

run "each_subscription_retries_for_long_and_has_a_dead_letter_topic" {
  assert {
    condition     = keys(terraform_data.subscription) == ["archived", "deleted", "finalized"]
    error_message = "not each trigger's subscription is completed"
  }
  assert {
    condition = {
      for event in keys(terraform_data.subscription) :
      local.triggers[event].name => file("build/gcloud/${local.triggers[event].name}")
      } == {
      for trigger in ["dcm2bq-123456", "dcm2bq-deleted", "dcm2bq-archived"] :
      trigger => join("\n", [
        "eventarc triggers describe ${trigger} --project=my-project --location=us --format=value(transport.pubsub.subscription)",
        join(" ", [
          "pubsub subscriptions add-iam-policy-binding projects/my-project/subscriptions/eventarc-us-${trigger}-sub-1",
          "--project=my-project --member=serviceAccount:pubsub-agent --role=roles/pubsub.subscriber --quiet",
        ]),
        join(" ", [
          "pubsub subscriptions update projects/my-project/subscriptions/eventarc-us-${trigger}-sub-1",
          "--project=my-project --ack-deadline=600 --dead-letter-topic=projects/my-project/topics/dcm2bq-dead-letter",
          "--max-delivery-attempts=100 --min-retry-delay=10s --max-retry-delay=600s",
          "--message-retention-duration=7d --expiration-period=never --quiet\n",
        ]),
      ])
    }
    error_message = "gcloud was called otherwise"
  }
}

run "a_subscription_is_completed_again_when_its_trigger_was_made_anew" {
  assert {
    condition = {
      for event, step in terraform_data.subscription : event => step.triggers_replace
      } == {
      for event in ["archived", "deleted", "finalized"] : event => [
        event == "finalized" ? { name = "dcm2bq-123456", uid = null } : { name = "dcm2bq-${event}", uid = google_eventarc_trigger.further[event].uid },
        "projects/my-project/topics/dcm2bq-dead-letter",
        "serviceAccount:pubsub-agent",
      ]
    }
    error_message = "what completes a subscription again is something else"
  }
}

run "and_when_the_function_was_deployed_anew" {
  variables {
    gcloud   = "./tests/gcloud_again"
    function = { memory = "1Gi" }
  }

  assert {
    condition     = strcontains(file("build/gcloud_again/${local.triggers.finalized.name}"), "pubsub subscriptions update")
    error_message = "the subscription of the function's own trigger was left as it may be now"
  }
}

run "but_not_without_a_reason" {
  variables {
    gcloud   = "false" # which would fail the apply
    function = { memory = "1Gi" }
  }

  assert {
    condition     = google_cloudfunctions2_function.ingest.service_config[0].available_memory == "1Gi"
    error_message = "the function was deployed anew"
  }
}

run "dead_letters_end_in_the_table_for_ever" {
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
    condition     = output.views == { for view in ["dead_letters", "dismissed_letters", "instances_live", "patients", "series", "studies"] : view => "my-project.dicom.${view}" }
    error_message = "the views are others"
  }
  assert {
    condition     = output.dashboard_url == "https://console.cloud.google.com/monitoring/dashboards/builder/the-dashboard?project=my-project"
    error_message = "the dashboard is elsewhere"
  }
}
