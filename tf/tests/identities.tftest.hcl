# Who may do what: an exact list. A new grant, a wider role, another member fails here.

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

run "without_the_options_nothing_is_granted_for_them" {
  command = plan

  assert {
    condition     = length(google_kms_crypto_key_iam_member.agents) + length(google_secret_manager_secret_iam_member.runtime) == 0
    error_message = "something is granted for options that are not used"
  }
}

run "the_identities_are_apart" {
  command = plan

  assert {
    condition = [
      google_service_account.runtime.account_id,
      google_service_account.trigger.account_id,
      google_service_account.build.account_id,
    ] == ["dcm2bq-run", "dcm2bq-trigger", "dcm2bq-build"]
    error_message = "the service accounts are others"
  }
}

run "nothing_else_grants" {
  variables {
    privacy = { hash = ["PatientID"], hash_key = { secret = "key", version = "3" } }
    kms_key = "projects/p/locations/us/keyRings/r/cryptoKeys/k"
  }

  assert {
    condition = length(local.names) > 0 && sort(flatten([
      for file in fileset(path.module, "*.tf") : [
        for each in regexall("resource \"(google_[a-z0-9_]*(?:iam|access|acl|account_key)[a-z0-9_]*)\" \"([a-z_]+)\"", file("${path.module}/${file}")) :
        join(".", each)
      ]
      ])) == tolist([
      "google_bigquery_dataset_iam_member.backfill",
      "google_bigquery_dataset_iam_member.runtime",
      "google_bigquery_table_iam_member.dead_letter",
      "google_cloud_run_v2_service_iam_member.trigger",
      "google_kms_crypto_key_iam_member.agents",
      "google_project_iam_custom_role.inserter",
      "google_project_iam_custom_role.loader",
      "google_project_iam_member.agent",
      "google_project_iam_member.backfill",
      "google_project_iam_member.build",
      "google_project_iam_member.build_source",
      "google_project_iam_member.storage_agent",
      "google_project_iam_member.trigger",
      "google_pubsub_topic_iam_member.dead_letter",
      "google_secret_manager_secret_iam_member.runtime",
      "google_storage_bucket_iam_member.backfill",
      "google_storage_bucket_iam_member.backfill_staging",
      "google_storage_bucket_iam_member.runtime",
    ])
    error_message = "other resources grant something: add them to the assertions of this file, with their reason beside them in identities.tf"
  }
  assert {
    condition = length(local.names) > 0 && alltrue([
      for file in fileset(path.module, "*.tf") :
      !can(regex("(?m)^\\s*access \\{|^\\s*dynamic \"access\"", file("${path.module}/${file}")))
    ])
    error_message = "a dataset grants access by itself"
  }

  assert {
    condition = toset(concat(
      [for grant in [google_project_iam_member.trigger, google_project_iam_member.build_source, google_project_iam_member.storage_agent] :
      "${grant.project}: ${grant.role} to ${grant.member}"],
      [for grant in google_project_iam_member.build : "${grant.project}: ${grant.role} to ${grant.member}"],
      [for grant in google_project_iam_member.agent : "${grant.project}: ${grant.role} to ${grant.member}"],
      )) == toset([
      "my-project: roles/artifactregistry.writer to serviceAccount:build",
      "my-project: roles/eventarc.eventReceiver to serviceAccount:trigger",
      "my-project: roles/eventarc.serviceAgent to serviceAccount:eventarc-agent",
      "my-project: roles/pubsub.publisher to serviceAccount:storage-agent",
      "my-project: roles/logging.logWriter to serviceAccount:build",
      "my-project: roles/pubsub.serviceAgent to serviceAccount:pubsub-agent",
      "my-project: roles/storage.objectViewer to serviceAccount:build",
    ])
    error_message = "other roles are granted in the project"
  }
  assert {
    condition = [for condition in google_project_iam_member.build_source.condition : condition.expression] == [
      join(" || ", [
        "resource.name == \"projects/_/buckets/my-project-dcm2bq-source\"",
        "resource.name.startsWith(\"projects/_/buckets/my-project-dcm2bq-source/\")",
        "resource.name == \"projects/_/buckets/gcf-v2-sources-123456789012-us-central1\"",
        "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-123456789012-us-central1/\")",
      ])
    ]
    error_message = "the build can read more than its source"
  }
  assert {
    condition = [
      "${google_storage_bucket_iam_member.runtime.bucket}: ${google_storage_bucket_iam_member.runtime.role} to ${google_storage_bucket_iam_member.runtime.member}",
      "${google_bigquery_dataset_iam_member.runtime.dataset_id}: ${google_bigquery_dataset_iam_member.runtime.role} to ${google_bigquery_dataset_iam_member.runtime.member}",
      "${google_secret_manager_secret_iam_member.runtime[0].secret_id}: ${google_secret_manager_secret_iam_member.runtime[0].role} to ${google_secret_manager_secret_iam_member.runtime[0].member}",
      "${google_cloud_run_v2_service_iam_member.trigger.name}: ${google_cloud_run_v2_service_iam_member.trigger.role} to ${google_cloud_run_v2_service_iam_member.trigger.member}",
      "${google_pubsub_topic_iam_member.dead_letter.topic}: ${google_pubsub_topic_iam_member.dead_letter.role} to ${google_pubsub_topic_iam_member.dead_letter.member}",
      "${google_bigquery_table_iam_member.dead_letter.dataset_id}.${google_bigquery_table_iam_member.dead_letter.table_id}: ${google_bigquery_table_iam_member.dead_letter.role} to ${google_bigquery_table_iam_member.dead_letter.member}",
      ] == [
      "my-project-dicom: roles/storage.objectViewer to serviceAccount:runtime",
      "dicom: projects/my-project/roles/dcm2bq_inserter to serviceAccount:runtime",
      "key: roles/secretmanager.secretAccessor to serviceAccount:runtime",
      "dcm2bq: roles/run.invoker to serviceAccount:trigger",
      "dcm2bq-dead-letter: roles/pubsub.publisher to serviceAccount:pubsub-agent",
      "dicom.dead_letter: roles/bigquery.dataEditor to serviceAccount:pubsub-agent",
    ]
    error_message = "other roles are granted on the parts"
  }
  assert {
    condition = google_project_iam_custom_role.inserter.permissions == toset([
      "bigquery.datasets.get",
      "bigquery.tables.get",
      "bigquery.tables.updateData",
    ])
    error_message = "the role that inserts rows holds other permissions"
  }
  assert {
    condition = toset([for grant in google_kms_crypto_key_iam_member.agents : "${grant.crypto_key_id}: ${grant.role} to ${grant.member}"]) == toset([
      "projects/p/locations/us/keyRings/r/cryptoKeys/k: roles/cloudkms.cryptoKeyEncrypterDecrypter to serviceAccount:bigquery-agent",
      "projects/p/locations/us/keyRings/r/cryptoKeys/k: roles/cloudkms.cryptoKeyEncrypterDecrypter to serviceAccount:pubsub-agent",
      "projects/p/locations/us/keyRings/r/cryptoKeys/k: roles/cloudkms.cryptoKeyEncrypterDecrypter to serviceAccount:storage-agent",
    ])
    error_message = "others can use the key"
  }
}
