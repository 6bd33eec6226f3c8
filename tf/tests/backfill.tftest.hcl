# What a backfill on Dataflow needs, and none of it by default.

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

run "without_it_there_is_nothing" {
  assert {
    condition = sum([for made in [
      google_storage_bucket.staging,
      google_project_iam_custom_role.loader,
      [for grant in output.grants : grant if strcontains(grant.member, "backfill")],
      [for name in keys(google_service_account.this) : name if name == "backfill"],
    ] : length(made)]) == 0
    error_message = "something is made for backfills by default"
  }
  assert {
    condition     = output.backfill == null && !contains(keys(google_project_service.this), "dataflow.googleapis.com")
    error_message = "something is switched on for backfills by default"
  }
}

run "the_apis_of_dataflow_are_enabled" {
  command = plan

  variables {
    backfill = { enabled = true }
  }

  assert {
    condition     = alltrue([for api in ["compute", "dataflow"] : contains(keys(google_project_service.this), "${api}.googleapis.com")])
    error_message = "an API is missing"
  }
}

run "staged_files_expire_for_good" {
  variables {
    backfill = { enabled = true, staging_days = 3 }
    region   = "europe-west4"
    bucket   = { location = "EU" }
    suffix   = "west-1"
  }

  assert {
    condition     = [google_storage_bucket.staging[0].name, google_storage_bucket.staging[0].location] == ["my-project-dcm2bq-staging-west-1", google_bigquery_dataset.dicom[0].location]
    error_message = "the staging bucket has another name, or is not where load jobs can read it"
  }
  assert {
    condition = [for rule in google_storage_bucket.staging[0].lifecycle_rule : [
      one(rule.condition).age, one(rule.action).type
    ]] == [[3, "Delete"]]
    error_message = "staged files do not expire"
  }
  assert {
    condition     = [for policy in google_storage_bucket.staging[0].soft_delete_policy : policy.retention_duration_seconds] == [0]
    error_message = "staged files can be restored"
  }
  assert {
    condition     = google_storage_bucket.staging[0].public_access_prevention == "enforced" && google_storage_bucket.staging[0].uniform_bucket_level_access
    error_message = "the staging bucket can be opened"
  }
  assert {
    condition     = output.backfill == "dcm2bq backfill gs://my-project-dicom-west-1 --staging gs://my-project-dcm2bq-staging-west-1/backfill --runner DataflowRunner --project my-project --region europe-west4 --service-account backfill@"
    error_message = "the command is different"
  }
}

run "staged_files_cannot_be_kept_for_ever" {
  command = plan

  variables {
    backfill = { enabled = true, staging_days = 0 }
  }

  expect_failures = [var.backfill]
}
