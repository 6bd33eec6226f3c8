# The archive is exactly what .gcloudignore leaves, and is named by its content.

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

run "the_archive_holds_the_function_and_nothing_else" {
  command = plan

  assert {
    condition     = alltrue([for file in ["main.py", "requirements.txt", ".python-version", "dcm2bq/handler.py", "dcm2bq/dicom/privacy/confidentiality_profile.tsv"] : contains(local.source, file)])
    error_message = "a file of the function is missing"
  }
  assert {
    condition     = alltrue([for file in local.source : !can(regex("^(docs|tests|benchmarks|tf)/|^dcm2bq/(cli|local|schema|tools)/|\\.pyc$", file))])
    error_message = "there is more in the archive than the function needs"
  }
  assert {
    condition     = google_storage_bucket_object.source.name == "${filesha256(data.archive_file.source.output_path)}.zip"
    error_message = "the archive is not named by its content"
  }
  assert {
    condition     = google_cloudfunctions2_function.ingest.labels["application"] == "dcm2bq" && can(regex("^\\d+-\\d+-\\d+(-dev0)?$", google_cloudfunctions2_function.ingest.labels["dcm2bq_version"]))
    error_message = "the labels of the function do not name the application and the release"
  }
}

run "the_archive_is_what_gcloud_would_upload" {
  module {
    source = "./tests/archive"
  }

  variables {
    archive = run.the_archive_holds_the_function_and_nothing_else.archive
  }
}
