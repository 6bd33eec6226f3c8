# Who may do what: an exact list. A new grant, a wider role or another member fails here.

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

run "the_identities_are_separate" {
  command = plan

  assert {
    condition     = { for name, account in google_service_account.this : name => account.account_id } == { runtime = "dcm2bq-run", trigger = "dcm2bq-trigger", build = "dcm2bq-build" }
    error_message = "the service accounts are different"
  }
}

run "existing_service_accounts_are_used_as_they_are" {
  variables {
    privacy    = { hash = ["PatientID"], hash_key = { secret = "key", version = "3" } }
    identities = { runtime = "a@p.iam.gserviceaccount.com", trigger = "b@p.iam.gserviceaccount.com", build = "c@p.iam.gserviceaccount.com" }
  }

  assert {
    condition     = length(google_service_account.this) == 0
    error_message = "a service account is created"
  }
  assert {
    condition = [
      google_cloudfunctions2_function.ingest.service_config[0].service_account_email,
      google_eventarc_trigger.event["dicom/deleted"].service_account,
      google_cloudfunctions2_function.ingest.build_config[0].service_account,
      google_project_iam_member.this["build_log"].member,
      google_bigquery_dataset_iam_member.this["runtime"].member,
      output.runtime_service_account,
      ] == [
      "a@p.iam.gserviceaccount.com",
      "b@p.iam.gserviceaccount.com",
      "projects/p/serviceAccounts/c@p.iam.gserviceaccount.com",
      "serviceAccount:c@p.iam.gserviceaccount.com",
      "serviceAccount:a@p.iam.gserviceaccount.com",
      "a@p.iam.gserviceaccount.com",
    ]
    error_message = "the parts run as other identities"
  }
}

run "each_grant_is_in_the_list" {
  variables {
    privacy  = { hash = ["PatientID"], hash_key = { secret = "key", version = "3" } }
    kms_key  = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
    backfill = { enabled = true }
    refresh  = { enabled = true }
    dataset  = { readers = ["group:research@example.org"] }
  }

  assert {
    condition = toset([for grant in output.grants : "${grant.role} on ${grant.on} to ${grant.member}${grant.condition == null ? "" : ", with a condition"}"]) == toset([
      "roles/artifactregistry.writer on project my-project to serviceAccount:build",
      "roles/bigquery.jobUser on project my-project to serviceAccount:backfill",
      "roles/bigquery.jobUser on project my-project to serviceAccount:refresh",
      "roles/bigquerydatatransfer.serviceAgent on project my-project to serviceAccount:bigquerydatatransfer-agent",
      "roles/dataflow.worker on project my-project to serviceAccount:backfill",
      "roles/eventarc.eventReceiver on project my-project to serviceAccount:trigger",
      "roles/eventarc.serviceAgent on project my-project to serviceAccount:eventarc-agent",
      "roles/logging.logWriter on project my-project to serviceAccount:build",
      "roles/pubsub.publisher on project my-project to serviceAccount:storage-agent",
      "roles/pubsub.serviceAgent on project my-project to serviceAccount:pubsub-agent",
      "roles/storage.objectViewer on project my-project to serviceAccount:build, with a condition",
      "roles/storage.objectViewer on bucket my-project-dicom to serviceAccount:runtime",
      "roles/storage.objectViewer on bucket my-project-dicom to serviceAccount:backfill",
      "roles/storage.objectUser on bucket my-project-dcm2bq-staging to serviceAccount:backfill",
      "projects/my-project/roles/dcm2bq_inserter on dataset my-project.dicom to serviceAccount:runtime",
      "projects/my-project/roles/dcm2bq_loader on dataset my-project.dicom to serviceAccount:backfill",
      "roles/bigquery.dataViewer on dataset my-project.dicom to group:research@example.org",
      "roles/bigquery.metadataViewer on dataset my-project.dicom to serviceAccount:refresh",
      "roles/bigquery.dataViewer on table my-project.dicom.instances to serviceAccount:refresh",
      "roles/bigquery.dataEditor on table my-project.dicom.objects to serviceAccount:refresh",
      "roles/bigquery.dataEditor on table my-project.dicom.dead_letter to serviceAccount:pubsub-agent",
      "roles/pubsub.publisher on topic dcm2bq-dead-letter to serviceAccount:pubsub-agent",
      "roles/secretmanager.secretAccessor on secret key to serviceAccount:runtime",
      "roles/secretmanager.secretAccessor on secret key to serviceAccount:backfill",
      "roles/run.invoker on Cloud Run service dcm2bq to serviceAccount:trigger",
      "roles/pubsub.subscriber on subscription of the trigger dcm2bq-archived to serviceAccount:pubsub-agent",
      "roles/pubsub.subscriber on subscription of the trigger dcm2bq-deleted to serviceAccount:pubsub-agent",
      "roles/pubsub.subscriber on subscription of the trigger dcm2bq-finalized to serviceAccount:pubsub-agent",
      "roles/cloudkms.cryptoKeyEncrypterDecrypter on key projects/p/locations/us-central1/keyRings/r/cryptoKeys/k to serviceAccount:artifactregistry-agent",
      "roles/cloudkms.cryptoKeyEncrypterDecrypter on key projects/p/locations/us-central1/keyRings/r/cryptoKeys/k to serviceAccount:bigquery-agent",
      "roles/cloudkms.cryptoKeyEncrypterDecrypter on key projects/p/locations/us-central1/keyRings/r/cryptoKeys/k to serviceAccount:cloudfunctions-agent",
      "roles/cloudkms.cryptoKeyEncrypterDecrypter on key projects/p/locations/us-central1/keyRings/r/cryptoKeys/k to serviceAccount:eventarc-agent",
      "roles/cloudkms.cryptoKeyEncrypterDecrypter on key projects/p/locations/us-central1/keyRings/r/cryptoKeys/k to serviceAccount:pubsub-agent",
      "roles/cloudkms.cryptoKeyEncrypterDecrypter on key projects/p/locations/us-central1/keyRings/r/cryptoKeys/k to serviceAccount:run-agent",
      "roles/cloudkms.cryptoKeyEncrypterDecrypter on key projects/p/locations/us-central1/keyRings/r/cryptoKeys/k to serviceAccount:storage-agent",
    ])
    error_message = "a grant was added, or is missing: correct this list, with the reason beside the grant in grants.tf"
  }
}

run "the_grants_made_are_those_of_the_list" {
  variables {
    privacy  = { hash = ["PatientID"], hash_key = { secret = "key", version = "3" } }
    kms_key  = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
    backfill = { enabled = true }
    refresh  = { enabled = true }
    dataset  = { readers = ["group:research@example.org"] }
  }

  # Every resource that can grant anything is one of these.
  assert {
    condition = length(local.names) > 0 && sort(flatten([
      for file in fileset(path.module, "*.tf") : [
        for resource in regexall("resource \"(google_[a-z0-9_]*(?:iam|access|acl|account_key)[a-z0-9_]*)\" \"([a-z_]+)\"", file("${path.module}/${file}")) :
        join(".", resource)
      ]
      ])) == tolist([
      "google_bigquery_dataset_iam_member.this",
      "google_bigquery_table_iam_member.dead_letter",
      "google_bigquery_table_iam_member.refresh",
      "google_cloud_run_v2_service_iam_member.trigger",
      "google_kms_crypto_key_iam_member.agents",
      "google_project_iam_custom_role.inserter",
      "google_project_iam_custom_role.loader",
      "google_project_iam_member.this",
      "google_pubsub_subscription_iam_member.dead_letter",
      "google_pubsub_topic_iam_member.dead_letter",
      "google_pubsub_topic_iam_member.objects",
      "google_secret_manager_secret_iam_member.this",
      "google_storage_bucket_iam_binding.owners_only",
      "google_storage_bucket_iam_member.this",
    ])
    error_message = "another resource grants something"
  }
  assert {
    condition = toset(concat(
      [for grant in google_project_iam_member.this : "${grant.role} on project ${grant.project} to ${grant.member}"],
      [for grant in google_storage_bucket_iam_member.this : "${grant.role} on bucket ${grant.bucket} to ${grant.member}"],
      [for grant in google_bigquery_dataset_iam_member.this : "${grant.role} on dataset my-project.${grant.dataset_id} to ${grant.member}"],
      [for grant in google_bigquery_table_iam_member.refresh : "${grant.role} on table my-project.${grant.dataset_id}.${grant.table_id} to ${grant.member}"],
      [for grant in google_bigquery_table_iam_member.dead_letter : "${grant.role} on table my-project.${grant.dataset_id}.${grant.table_id} to ${grant.member}"],
      [for grant in google_pubsub_topic_iam_member.dead_letter : "${grant.role} on topic ${grant.topic} to ${grant.member}"],
      [for grant in google_secret_manager_secret_iam_member.this : "${grant.role} on secret ${grant.secret_id} to ${grant.member}"],
      [for grant in google_kms_crypto_key_iam_member.agents : "${grant.role} on key ${grant.crypto_key_id} to ${grant.member}"],
      [for grant in google_cloud_run_v2_service_iam_member.trigger : "${grant.role} on Cloud Run service ${grant.name} to ${grant.member}"],
      [for grant in google_pubsub_subscription_iam_member.dead_letter : "${grant.role} on subscription of the trigger ${trimprefix(grant.subscription, "none-of-")} to ${grant.member}"],
    )) == toset([for grant in output.grants : "${grant.role} on ${grant.on} to ${grant.member}"])
    error_message = "what is granted is not what the output lists"
  }
  assert {
    condition = [for name, grant in google_project_iam_member.this : "${name}: ${grant.condition[0].expression}" if length(grant.condition) > 0] == [
      join("", ["build_source: ", join(" || ", [
        "resource.name == \"projects/_/buckets/my-project-dcm2bq-source\"",
        "resource.name.startsWith(\"projects/_/buckets/my-project-dcm2bq-source/\")",
        "resource.name == \"projects/_/buckets/gcf-v2-sources-123456789012-us-central1\"",
        "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-123456789012-us-central1/\")",
      ])])
    ]
    error_message = "the build can read more than its source"
  }
  assert {
    condition = [google_project_iam_custom_role.inserter[0].permissions, google_project_iam_custom_role.loader[0].permissions] == [
      toset(["bigquery.datasets.get", "bigquery.tables.get", "bigquery.tables.updateData"]),
      toset(["bigquery.datasets.get", "bigquery.tables.get", "bigquery.tables.updateData", "bigquery.tables.getData"]),
    ]
    error_message = "a custom role holds other permissions"
  }
}

run "without_grants_nothing_is_granted_and_the_list_remains" {
  command = plan

  variables {
    grants     = false
    kms_grants = false
    privacy    = { hash = ["PatientID"], hash_key = { secret = "key", version = "3" } }
    kms_key    = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
    backfill   = { enabled = true }
    refresh    = { enabled = true }
    dataset    = { readers = ["group:research@example.org"] }
    buckets    = { dicom = {}, ct = { via = "pubsub" } }
  }

  assert {
    condition = sum([for grants in [
      google_project_iam_member.this,
      google_project_iam_custom_role.inserter,
      google_project_iam_custom_role.loader,
      google_storage_bucket_iam_member.this,
      google_storage_bucket_iam_binding.owners_only,
      google_bigquery_dataset_iam_member.this,
      google_bigquery_table_iam_member.dead_letter,
      google_bigquery_table_iam_member.refresh,
      google_pubsub_topic_iam_member.dead_letter,
      google_pubsub_topic_iam_member.objects,
      google_pubsub_subscription_iam_member.dead_letter,
      google_secret_manager_secret_iam_member.this,
      google_kms_crypto_key_iam_member.agents,
      google_cloud_run_v2_service_iam_member.trigger,
    ] : length(grants)]) == 0
    error_message = "something is granted"
  }
  assert {
    condition     = length(output.grants) == 39 && contains([for grant in output.grants : grant.role], "a custom role of bigquery.datasets.get, bigquery.tables.get, bigquery.tables.updateData")
    error_message = "the list does not say what has to be granted"
  }
}
