# Several buckets, by both ways, and a dataset of another deployment.

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

run "six_buckets_by_both_ways" {
  variables {
    buckets = {
      dicom = {}                                                         # new, as that of the variable bucket
      us    = { name = "us-scans", existing = true, location = "US" }    # existing, in another location
      ct    = { name = "ct-scans", via = "pubsub", prefix = "2026/ct/" } # new, some of its objects
      mr    = { name = "mr-scans", existing = true, via = "pubsub" }     # of another project
      pet = {                                                            # of a project that nobody here may see
        name              = "pet-scans"
        existing          = true
        via               = "pubsub"
        prefix            = "pet/"
        managed_elsewhere = true
        project_number    = "888888888888"
      }
      xa = { # with the topic and subscription of another service
        name         = "xa-scans"
        existing     = true
        via          = "pubsub"
        topic        = "projects/other/topics/scans"
        subscription = "scans-push"
      }
    }
    topic_regions = ["us-central1"]
    backfill      = { enabled = true }
    alerts        = { silence_hours = 12 }
  }

  override_data {
    target = data.google_storage_bucket.existing["us"]
    values = { location = "US", project_number = 123456789012, hierarchical_namespace = [] }
  }
  override_data {
    target = data.google_storage_bucket.existing["mr"]
    values = { location = "EU", project_number = 999999999999, hierarchical_namespace = [] }
  }
  override_resource {
    target = google_pubsub_topic.objects["ct"]
    values = { id = "projects/my-project/topics/dcm2bq-objects-ct" }
  }
  override_resource {
    target = google_pubsub_topic.objects["mr"]
    values = { id = "projects/my-project/topics/dcm2bq-objects-mr" }
  }

  override_resource {
    target = google_pubsub_topic.objects["pet"]
    values = { id = "projects/my-project/topics/dcm2bq-objects-pet" }
  }

  assert {
    condition = { for key, trigger in google_eventarc_trigger.event : key => [
      trigger.name, trigger.location, one([for criterion in trigger.matching_criteria : criterion.value if criterion.attribute == "bucket"])
      ] } == merge(
      { for event in ["archived", "deleted", "finalized"] : "dicom/${event}" => ["dcm2bq-${event}", "us-central1", "my-project-dicom"] },
      { for event in ["archived", "deleted", "finalized"] : "us/${event}" => ["dcm2bq-${event}-us", "us", "us-scans"] },
    )
    error_message = "the triggers are others"
  }
  assert {
    condition     = keys(terraform_data.subscription) == keys(google_eventarc_trigger.event)
    error_message = "the subscription of a trigger keeps the settings that Eventarc gave it"
  }
  assert {
    condition     = { for key, bucket in google_storage_bucket.dicom : key => bucket.name } == { dicom = "my-project-dicom", ct = "ct-scans" }
    error_message = "other buckets are made"
  }
  assert {
    condition     = contains(keys(google_storage_bucket_iam_binding.owners_only), "ct/legacyObjectReader") && !contains(keys(google_storage_bucket_iam_binding.owners_only), "mr/legacyObjectReader")
    error_message = "viewers of the project can read a new bucket, or an existing one was changed"
  }
  assert {
    condition = { for key, topic in google_pubsub_topic.objects : key => [topic.name, topic.message_storage_policy[0].allowed_persistence_regions] } == {
      ct  = ["dcm2bq-objects-ct", toset(["us-central1"])]
      mr  = ["dcm2bq-objects-mr", toset(["us-central1"])]
      pet = ["dcm2bq-objects-pet", toset(["us-central1"])]
    }
    error_message = "the topics are others, or messages may be stored elsewhere"
  }
  assert {
    condition = jsonencode({ for key, notification in google_storage_notification.objects : key => [
      notification.bucket, notification.topic, notification.payload_format, one(notification.event_types), notification.object_name_prefix,
      ] }) == jsonencode(merge([for key, expected in {
        ct = ["ct-scans", "projects/my-project/topics/dcm2bq-objects-ct", "2026/ct/"]
        mr = ["mr-scans", "projects/my-project/topics/dcm2bq-objects-mr", null]
        xa = ["xa-scans", "projects/other/topics/scans", null]
        } : {
        "${key}/archived"  = [expected[0], expected[1], "JSON_API_V1", "OBJECT_ARCHIVE", expected[2]]
        "${key}/deleted"   = [expected[0], expected[1], "JSON_API_V1", "OBJECT_DELETE", expected[2]]
        "${key}/finalized" = [expected[0], expected[1], "JSON_API_V1", "OBJECT_FINALIZE", expected[2]]
    }]...))
    error_message = "the notifications are others"
  }
  assert {
    condition = { for key, subscription in google_pubsub_subscription.objects : key => "${subscription.name} of ${subscription.topic}" } == {
      ct  = "dcm2bq-objects-ct of projects/my-project/topics/dcm2bq-objects-ct"
      mr  = "dcm2bq-objects-mr of projects/my-project/topics/dcm2bq-objects-mr"
      pet = "dcm2bq-objects-pet of projects/my-project/topics/dcm2bq-objects-pet"
      xa  = "scans-push of projects/other/topics/scans"
    }
    error_message = "the subscriptions are others"
  }
  assert {
    condition = alltrue([for subscription in google_pubsub_subscription.objects : jsonencode([
      subscription.push_config[0].push_endpoint,
      subscription.push_config[0].oidc_token[0].service_account_email,
      subscription.push_config[0].oidc_token[0].audience,
      subscription.ack_deadline_seconds,
      subscription.message_retention_duration,
      subscription.expiration_policy[0].ttl,
      subscription.retry_policy[0].minimum_backoff,
      subscription.retry_policy[0].maximum_backoff,
      subscription.dead_letter_policy[0].dead_letter_topic,
      subscription.dead_letter_policy[0].max_delivery_attempts,
      ]) == jsonencode([
      "https://dcm2bq-x-uc.a.run.app", "trigger@", "https://dcm2bq-x-uc.a.run.app", 600, "604800s", "", "10s", "600s",
      "projects/my-project/topics/dcm2bq-dead-letter", 100,
    ])])
    error_message = "pushes go elsewhere, as somebody else, or with other settings than those of triggers"
  }
  assert {
    condition     = toset(jsondecode(output.config).input.buckets) == toset(["ct-scans", "mr-scans", "my-project-dicom", "pet-scans", "us-scans", "xa-scans"])
    error_message = "the function refuses events of a bucket, or believes those of others"
  }

  # Grants: the list has them all, and what is made lacks those on the bucket that is managed elsewhere.
  assert {
    condition = toset([for grant in output.grants : "${grant.role} on ${grant.on} to ${grant.member}" if can(regex("^(bucket|topic|subscription) ", grant.on)) && grant.on != "bucket my-project-dcm2bq-staging"]) == toset(flatten([
      [for bucket in ["ct-scans", "mr-scans", "my-project-dicom", "pet-scans", "us-scans", "xa-scans"] : [
        "roles/storage.objectViewer on bucket ${bucket} to serviceAccount:runtime",
        "roles/storage.objectViewer on bucket ${bucket} to serviceAccount:backfill",
      ]],
      "roles/pubsub.publisher on topic dcm2bq-objects-ct to serviceAccount:storage-agent",
      "roles/pubsub.publisher on topic dcm2bq-objects-mr to serviceAccount:service-999999999999@gs-project-accounts.iam.gserviceaccount.com",
      "roles/pubsub.publisher on topic dcm2bq-objects-pet to serviceAccount:service-888888888888@gs-project-accounts.iam.gserviceaccount.com",
      "roles/pubsub.publisher on topic dcm2bq-dead-letter to serviceAccount:pubsub-agent",
      [for trigger in google_eventarc_trigger.event : "roles/pubsub.subscriber on subscription of the trigger ${trigger.name} to serviceAccount:pubsub-agent"],
      [for name in ["dcm2bq-objects-ct", "dcm2bq-objects-mr", "dcm2bq-objects-pet", "scans-push"] : "roles/pubsub.subscriber on subscription ${name} to serviceAccount:pubsub-agent"],
    ]))
    error_message = "a grant on buckets, topics or subscriptions was added, or is missing"
  }
  assert {
    condition     = sort([for grant in google_storage_bucket_iam_member.this : grant.bucket if grant.role == "roles/storage.objectViewer"]) == tolist(["ct-scans", "ct-scans", "mr-scans", "mr-scans", "my-project-dicom", "my-project-dicom", "us-scans", "us-scans", "xa-scans", "xa-scans"])
    error_message = "a bucket that is managed elsewhere was changed, or another was not granted"
  }
  assert {
    condition = toset(concat(
      [for grant in google_pubsub_topic_iam_member.objects : "${grant.role} on topic ${grant.topic} to ${grant.member}"],
      [for grant in google_pubsub_topic_iam_member.dead_letter : "${grant.role} on topic ${grant.topic} to ${grant.member}"],
      )) == toset([for grant in output.grants : "${grant.role} on ${grant.on} to ${grant.member}" if startswith(grant.on, "topic ")]) && toset(values(local.subscriptions)) == toset([
      for grant in google_pubsub_subscription_iam_member.dead_letter : grant.subscription
    ])
    error_message = "what is granted on topics and subscriptions is not what the output lists"
  }

  # What operators see.
  assert {
    condition = output.buckets == {
      dicom = { path = "gs://my-project-dicom", via = "eventarc", subscriptions = tolist(["none-of-dcm2bq-archived", "none-of-dcm2bq-deleted", "none-of-dcm2bq-finalized"]) }
      us    = { path = "gs://us-scans", via = "eventarc", subscriptions = tolist(["none-of-dcm2bq-archived-us", "none-of-dcm2bq-deleted-us", "none-of-dcm2bq-finalized-us"]) }
      ct    = { path = "gs://ct-scans/2026/ct/", via = "pubsub", subscriptions = tolist(["dcm2bq-objects-ct"]) }
      mr    = { path = "gs://mr-scans", via = "pubsub", subscriptions = tolist(["dcm2bq-objects-mr"]) }
      pet   = { path = "gs://pet-scans/pet/", via = "pubsub", subscriptions = tolist(["dcm2bq-objects-pet"]) }
      xa    = { path = "gs://xa-scans", via = "pubsub", subscriptions = tolist(["scans-push"]) }
    }
    error_message = "the output buckets is different"
  }
  assert {
    condition     = output.bucket == null && output.subscriptions["finalized"] == "none-of-dcm2bq-finalized" && output.subscriptions["us/deleted"] == "none-of-dcm2bq-deleted-us" && output.subscriptions["ct"] == "dcm2bq-objects-ct"
    error_message = "an output of one bucket is different"
  }
  assert {
    condition = output.notifications == {
      pet = "gcloud storage buckets notifications create gs://pet-scans --topic=projects/my-project/topics/dcm2bq-objects-pet --skip-topic-setup --payload-format=json --event-types=OBJECT_ARCHIVE,OBJECT_DELETE,OBJECT_FINALIZE --object-prefix='pet/'"
    }
    error_message = "the owners of a bucket would create another notification"
  }
  assert {
    condition     = [for line in split("\n", output.backfill) : split(" ", line)[2]] == ["'gs://ct-scans/2026/ct/'", "gs://my-project-dicom", "gs://mr-scans", "'gs://pet-scans/pet/'", "gs://us-scans", "gs://xa-scans"]
    error_message = "a bucket cannot be indexed as a whole"
  }
  assert {
    condition = alltrue([for policy in [google_monitoring_alert_policy.oldest_unacked, google_monitoring_alert_policy.exhausted] :
      strcontains(policy.conditions[0].condition_threshold[0].filter, "full_match(\"dcm2bq-objects-ct|dcm2bq-objects-mr|dcm2bq-objects-pet|none-of-dcm2bq-archived|none-of-dcm2bq-archived-us|")
    ])
    error_message = "an alert does not look at every subscription"
  }
  assert {
    condition = split(" or label_replace", google_monitoring_alert_policy.silence[0].conditions[0].condition_prometheus_query_language[0].query)[0] == join("", [
      "label_replace((sum(increase(pubsub_googleapis_com:subscription_push_request_count{monitored_resource=\"pubsub_subscription\",subscription_id=~\"dcm2bq-objects-ct\"}[12h]))",
      " or vector(0)) < 1, \"bucket\", \"ct\", \"\", \"\")",
    ]) && length(split(" or label_replace", google_monitoring_alert_policy.silence[0].conditions[0].condition_prometheus_query_language[0].query)) == 6
    error_message = "the uploads of one bucket hide the silence of another"
  }
  assert {
    condition     = jsondecode(google_monitoring_dashboard.this.dashboard_json).displayName == "dcm2bq: 6 buckets" && google_cloudfunctions2_function.ingest.description == "Headers of the DICOM objects in 6 buckets to BigQuery"
    error_message = "title or description is different"
  }
  assert {
    condition     = google_bigquery_dataset.dicom[0].location == "us-central1"
    error_message = "another bucket than dicom decides where the dataset is"
  }
}

run "without_eventarc_nothing_is_granted_for_it" {
  command = plan

  variables {
    buckets = { dicom = { via = "pubsub" } }
  }

  assert {
    condition     = length(google_eventarc_trigger.event) == 0 && google_pubsub_topic.objects["dicom"].name == "dcm2bq-objects"
    error_message = "the bucket has another way in"
  }
  assert {
    condition     = !contains(keys(google_project_iam_member.this), "trigger") && !contains(keys(google_project_iam_member.this), "storage_agent")
    error_message = "roles on the project are granted for triggers that are not there"
  }
}

run "a_dataset_of_another_deployment_is_used_as_it_is" {
  variables {
    suffix   = "west-56789"
    buckets  = { key-of-20-characters = { location = "EU" } }
    region   = "europe-west4"
    dataset  = { id = "dicom", existing = true, readers = ["group:research@example.org"] }
    privacy  = { remove = ["PatientName"] }
    backfill = { enabled = true }
  }

  override_data {
    target = data.google_bigquery_dataset.existing
    values = { location = "us-central1", access = [] }
  }

  assert {
    condition     = max([for trigger in google_eventarc_trigger.event : length(trigger.name)]...) == 48 # as finalized; 54 as metadataUpdated
    error_message = "the longest names are different: Eventarc allows 63 characters"
  }
  assert {
    condition = sum([for made in [
      google_bigquery_dataset.dicom, google_bigquery_table.table, google_bigquery_table.view, google_bigquery_table.aggregate,
      google_bigquery_routine.table_function, terraform_data.columns, terraform_data.view,
    ] : length(made)]) == 0
    error_message = "something of the dataset is made, which its owner would change back"
  }
  assert {
    condition = { for name, grant in google_bigquery_dataset_iam_member.this : name => "${grant.role} on ${grant.dataset_id}" } == {
      runtime                             = "projects/my-project/roles/dcm2bq_inserter on dicom"
      backfill                            = "projects/my-project/roles/dcm2bq_loader on dicom"
      "reader/group:research@example.org" = "roles/bigquery.dataViewer on dicom"
    }
    error_message = "the grants on the dataset are others"
  }
  assert {
    condition = [
      google_pubsub_subscription.dead_letter.bigquery_config[0].table,
      google_bigquery_table_iam_member.dead_letter[0].table_id,
      google_storage_bucket.staging[0].location,
      jsondecode(output.config).bigQuery.datasetId,
      output.views.studies,
      output.dataset,
    ] == ["my-project.dicom.dead_letter", "dead_letter", "us-central1", "dicom", "my-project.dicom.studies", "my-project.dicom"]
    error_message = "rows and dead letters go elsewhere"
  }
  assert {
    condition     = [for name, table in terraform_data.existing_table : "${basename(table.triggers_replace.table)} ${table.triggers_replace.privacy}"] == ["dead_letter ", "dicom_dictionary ", "instances ${local.privacy_fingerprint}", "objects ", "protocol_reference "]
    error_message = "rows of other privacy options would be mixed"
  }
}

run "a_name_that_another_bucket_has_by_default" {
  command = plan

  variables {
    buckets = { ct = { name = "my-project-mr" }, mr = {} }
  }

  expect_failures = [google_cloudfunctions2_function.ingest]
}

run "a_bucket_that_is_not_where_its_location_says" {
  command = plan

  variables {
    buckets = { ct = { name = "ct-scans", existing = true, location = "US" } }
  }

  expect_failures = [google_cloudfunctions2_function.ingest]
}
