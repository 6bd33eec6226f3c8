# What a backfill on Dataflow needs, and nothing of it unless it is asked for.

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

run "without_it_there_is_nothing" {
  command = plan

  assert {
    condition = sum([for made in [
      google_storage_bucket.staging,
      google_service_account.backfill,
      google_storage_bucket_iam_member.backfill,
      google_storage_bucket_iam_member.backfill_staging,
      google_project_iam_custom_role.loader,
      google_bigquery_dataset_iam_member.backfill,
      google_project_iam_member.backfill,
    ] : length(made)]) == 0
    error_message = "something is made for backfills that nobody asked for"
  }
  assert {
    condition     = output.backfill == null && !contains(keys(google_project_service.this), "dataflow.googleapis.com")
    error_message = "something is switched on for backfills that nobody asked for"
  }
}

run "the_workers_may_do_what_a_backfill_does_and_no_more" {
  variables {
    backfill = { enabled = true }
  }

  assert {
    condition = toset(concat(
      [for grant in google_project_iam_member.backfill : "${grant.project}: ${grant.role} to ${grant.member}"],
      [for grant in concat(google_storage_bucket_iam_member.backfill, google_storage_bucket_iam_member.backfill_staging) : "${grant.bucket}: ${grant.role} to ${grant.member}"],
      [for grant in google_bigquery_dataset_iam_member.backfill : "${grant.dataset_id}: ${grant.role} to ${grant.member}"],
      )) == toset([
      "my-project: roles/bigquery.jobUser to serviceAccount:backfill",
      "my-project: roles/dataflow.worker to serviceAccount:backfill",
      "my-project-dicom: roles/storage.objectViewer to serviceAccount:backfill",
      "my-project-dcm2bq-staging: roles/storage.objectUser to serviceAccount:backfill",
      "dicom: ${google_project_iam_custom_role.loader[0].id} to serviceAccount:backfill",
    ])
    error_message = "other roles are granted to the workers"
  }
  assert {
    condition = google_project_iam_custom_role.loader[0].role_id == "dcm2bq_loader" && google_project_iam_custom_role.loader[0].permissions == toset([
      "bigquery.datasets.get",
      "bigquery.tables.get",
      "bigquery.tables.getData",
      "bigquery.tables.updateData",
    ])
    error_message = "the role that loads rows holds other permissions"
  }
  assert {
    condition     = alltrue([for api in ["compute", "dataflow"] : contains(keys(google_project_service.this), "${api}.googleapis.com")])
    error_message = "an API is missing"
  }
}

run "what_is_staged_goes_by_itself_and_for_good" {
  variables {
    backfill = { enabled = true, staging_days = 3 }
    bucket   = { location = "EU" }
    suffix   = "west-1"
    kms_key  = "projects/p/locations/europe/keyRings/r/cryptoKeys/k"
  }

  assert {
    condition     = [google_storage_bucket.staging[0].name, google_storage_bucket.staging[0].location] == ["my-project-dcm2bq-staging-west-1", google_bigquery_dataset.dicom.location]
    error_message = "the staging bucket has another name, or is not where load jobs can read it"
  }
  assert {
    condition = [for rule in google_storage_bucket.staging[0].lifecycle_rule : [
      one(rule.condition).age, one(rule.action).type
    ]] == [[3, "Delete"]]
    error_message = "what is staged does not go"
  }
  assert {
    condition     = [for policy in google_storage_bucket.staging[0].soft_delete_policy : policy.retention_duration_seconds] == [0]
    error_message = "what is staged can be restored"
  }
  assert {
    condition     = google_storage_bucket.staging[0].public_access_prevention == "enforced" && google_storage_bucket.staging[0].uniform_bucket_level_access
    error_message = "the staging bucket can be opened"
  }
  assert {
    condition     = [for each in google_storage_bucket.staging[0].encryption : each.default_kms_key_name] == ["projects/p/locations/europe/keyRings/r/cryptoKeys/k"]
    error_message = "what is staged is not under the given key"
  }
  assert {
    condition     = output.backfill == "dcm2bq backfill gs://my-project-dicom-west-1 --staging gs://my-project-dcm2bq-staging-west-1/backfill --runner DataflowRunner --project my-project --region europe-west4 --service-account backfill@"
    error_message = "the command is another"
  }
}

run "what_is_staged_cannot_stay" {
  command = plan

  variables {
    backfill = { enabled = true, staging_days = 0 }
  }

  expect_failures = [var.backfill]
}
