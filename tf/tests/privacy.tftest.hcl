# The label by which a table tells how its rows were made.

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

run "without_privacy_options_the_table_has_no_label_for_them" {
  command = plan

  assert {
    condition     = google_bigquery_table.table["instances"].labels == tomap({ application = "dcm2bq" })
    error_message = "the labels are others"
  }
}

# The vectors are those of the Python side: tests/deploy/test_deploy_privacy.py.

run "the_fingerprint_of_what_is_removed" {
  command = plan

  variables {
    privacy = jsondecode(file("../tests/deploy/privacy.json"))[0].terraform
  }

  assert {
    condition     = google_bigquery_table.table["instances"].labels.dcm2bq_privacy == jsondecode(file("../tests/deploy/privacy.json"))[0].fingerprint
    error_message = "the fingerprint differs from Python's"
  }
}

run "the_fingerprint_of_tags_and_masks" {
  command = plan

  variables {
    privacy = jsondecode(file("../tests/deploy/privacy.json"))[1].terraform
  }

  assert {
    condition     = google_bigquery_table.table["instances"].labels.dcm2bq_privacy == jsondecode(file("../tests/deploy/privacy.json"))[1].fingerprint
    error_message = "the fingerprint differs from Python's"
  }
}

run "the_fingerprint_of_what_is_hashed_and_its_key" {
  command = plan

  variables {
    privacy = jsondecode(file("../tests/deploy/privacy.json"))[2].terraform
  }

  assert {
    condition     = google_bigquery_table.table["instances"].labels.dcm2bq_privacy == jsondecode(file("../tests/deploy/privacy.json"))[2].fingerprint
    error_message = "the fingerprint differs from Python's"
  }
  assert {
    condition = [for each in google_cloudfunctions2_function.ingest.service_config[0].secret_environment_variables : [each.key, each.project_id, each.secret, each.version]] == [
      ["DCM2BQ_HASH_KEY", "my-project", "dcm2bq-key", "3"],
    ]
    error_message = "the function gets another key"
  }
  assert {
    condition     = jsondecode(output.config).privacy.hashKeySecret == "projects/my-project/secrets/dcm2bq-key/versions/3"
    error_message = "commands cannot read the key by its name"
  }
  assert {
    condition     = !strcontains(google_cloudfunctions2_function.ingest.service_config[0].environment_variables.DCM2BQ_CONFIG, "hashKeySecret")
    error_message = "the function would read the key a second time"
  }
  assert {
    condition     = contains(keys(google_project_service.this), "secretmanager.googleapis.com")
    error_message = "the API of the secret is not enabled"
  }
}

run "the_fingerprint_of_the_profile" {
  command = plan

  variables {
    privacy = jsondecode(file("../tests/deploy/privacy.json"))[3].terraform
  }

  assert {
    condition     = google_bigquery_table.table["instances"].labels.dcm2bq_privacy == jsondecode(file("../tests/deploy/privacy.json"))[3].fingerprint
    error_message = "the fingerprint differs from Python's"
  }
  assert {
    condition     = google_bigquery_table.table["dead_letter"].labels == tomap({ application = "dcm2bq" })
    error_message = "another table has the label"
  }
}

run "the_fingerprint_of_hashed_names" {
  command = plan

  variables {
    privacy = jsondecode(file("../tests/deploy/privacy.json"))[4].terraform
  }

  assert {
    condition     = google_bigquery_table.table["instances"].labels.dcm2bq_privacy == jsondecode(file("../tests/deploy/privacy.json"))[4].fingerprint
    error_message = "the fingerprint differs from Python's"
  }
  assert {
    condition     = jsondecode(output.config).privacy.path == "hash"
    error_message = "the function gets another option"
  }
}

run "the_fingerprint_of_the_options_of_the_profile" {
  command = plan

  variables {
    privacy = jsondecode(file("../tests/deploy/privacy.json"))[5].terraform
  }

  assert {
    condition     = google_bigquery_table.table["instances"].labels.dcm2bq_privacy == jsondecode(file("../tests/deploy/privacy.json"))[5].fingerprint
    error_message = "the fingerprint differs from Python's"
  }
  assert {
    condition     = jsondecode(output.config).privacy.options == ["cleanDescriptors", "retainLongitudinalModifiedDates", "retainUids"] && jsondecode(output.config).privacy.shiftDays == 30
    error_message = "the function gets other options"
  }
  assert {
    condition     = jsondecode(output.config).privacy.keptDescriptors == ["<CT> & MR", "Schädel"]
    error_message = "the function gets other descriptors"
  }
}

run "what_pubsub_gives_up_on_has_names_and_a_closed_dataset" {
  command = plan

  variables {
    privacy = { path = "hash", hash_key = { secret = "dcm2bq-key", version = "2" } }
    dataset = { readers = ["group:research@example.org"] }
  }

  assert {
    condition     = google_pubsub_subscription.dead_letter.bigquery_config[0].table == "my-project.dcm2bq_undelivered.dead_letter" && output.undelivered == "my-project.dcm2bq_undelivered.dead_letter"
    error_message = "Pub/Sub writes names into the dataset"
  }
  assert {
    condition     = [for entry in google_bigquery_dataset.undelivered[0].access : entry.special_group] == ["projectOwners"]
    error_message = "others than owners can read the names"
  }
  assert {
    condition     = [for grant in google_bigquery_table_iam_member.dead_letter : "${grant.dataset_id}.${grant.table_id}"] == ["dcm2bq_undelivered.dead_letter"]
    error_message = "Pub/Sub may not write the table, or may write another"
  }
  assert {
    condition     = !anytrue([for grant in google_bigquery_dataset_iam_member.this : grant.dataset_id == "dcm2bq_undelivered"])
    error_message = "readers of the dataset can read the names"
  }
}

run "without_hashed_names_there_is_one_dataset" {
  command = plan

  assert {
    condition     = length(google_bigquery_dataset.undelivered) + length(google_bigquery_table.undelivered) == 0 && output.undelivered == null
    error_message = "a dataset too many"
  }
}

run "no_vector_is_left_out" {
  command = plan

  assert {
    condition     = local.name == "dcm2bq" && length(jsondecode(file("../tests/deploy/privacy.json"))) == 6
    error_message = "a vector has no run of its own"
  }
}

run "an_apply_with_options" {
  variables {
    privacy = { remove = ["PatientName"] }
  }

  assert {
    condition     = google_bigquery_table.table["instances"].labels.dcm2bq_privacy == local.privacy_fingerprint
    error_message = "the table does not tell its options"
  }
}

run "rows_of_other_options_are_refused" {
  command = plan

  variables {
    privacy = { remove = ["PatientName", "PatientID"] }
  }

  expect_failures = [google_bigquery_table.table]
}

run "rows_without_options_are_refused" {
  command = plan

  expect_failures = [google_bigquery_table.table]
}

run "the_same_options_are_not" {
  command = plan

  variables {
    privacy = { remove = ["PatientName"] }
  }

  assert {
    condition     = google_bigquery_table.table["instances"].labels.dcm2bq_privacy == local.privacy_fingerprint
    error_message = "the table does not tell its options"
  }
}
