# What can not work is refused before anything is made, in sentences.

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

run "a_project_number" {
  command = plan

  variables {
    project_id = "123456789012"
  }

  expect_failures = [var.project_id]
}

run "a_zone" {
  command = plan

  variables {
    region = "europe-west4-a"
  }

  expect_failures = [var.region]
}

run "a_long_suffix" {
  command = plan

  variables {
    suffix = "eleven-char"
  }

  expect_failures = [var.suffix]
}

run "a_suffix_that_ends_in_a_hyphen" {
  command = plan

  variables {
    suffix = "west-"
  }

  expect_failures = [var.suffix]
}

run "an_existing_bucket_without_a_name" {
  command = plan

  variables {
    bucket = { existing = true }
  }

  expect_failures = [var.bucket]
}

run "a_bucket_uri" {
  command = plan

  variables {
    bucket = { name = "gs://scans" }
  }

  expect_failures = [var.bucket]
}

run "a_dataset_with_a_hyphen" {
  command = plan

  variables {
    dataset = { id = "my-dataset" }
  }

  expect_failures = [var.dataset]
}

run "a_table_with_a_dot" {
  command = plan

  variables {
    dataset = { instances_table_id = "other.instances" }
  }

  expect_failures = [var.dataset]
}

run "two_tables_of_one_name" {
  command = plan

  variables {
    dataset = { instances_table_id = "events", dead_letter_table_id = "EVENTS" }
  }

  expect_failures = [var.dataset]
}

run "a_table_with_the_name_of_a_view" {
  command = plan

  variables {
    dataset = { instances_table_id = "studies" }
  }

  expect_failures = [var.dataset]
}

run "memory_without_a_unit" {
  command = plan

  variables {
    function = { memory = "512" }
  }

  expect_failures = [var.function]
}

run "half_a_concurrent_event" {
  command = plan

  variables {
    function = { concurrency = 1.5 }
  }

  expect_failures = [var.function]
}

run "concurrency_on_a_part_of_a_cpu" {
  command = plan

  variables {
    function = { cpu = "0.5" }
  }

  expect_failures = [var.function]
}

run "fewer_instances_at_most_than_at_least" {
  command = plan

  variables {
    function = { min_instances = 5, max_instances = 4 }
  }

  expect_failures = [var.function]
}

run "a_timeout_below_the_deadline" {
  command = plan

  variables {
    function = { timeout_seconds = 59 }
  }

  expect_failures = [var.function]
}

run "a_deadline_above_the_timeout" {
  command = plan

  variables {
    config = { limits = { deadlineSeconds = 111 } }
  }

  expect_failures = [var.function]
}

run "a_timeout_of_the_acknowledgement_deadline" {
  command = plan

  variables {
    function = { timeout_seconds = 600 }
  }

  expect_failures = [var.function]
}

run "an_unknown_profile" {
  command = plan

  variables {
    privacy = { profile = "strict", hash_key = { secret = "key", version = "1" } }
  }

  expect_failures = [var.privacy]
}

run "an_attribute_that_would_be_escaped" {
  command = plan

  variables {
    privacy = { remove = ["Patient<Name>"] }
  }

  expect_failures = [var.privacy]
}

run "an_attribute_beyond_ascii" {
  command = plan

  variables {
    privacy = { remove = ["Pâtient"] }
  }

  expect_failures = [var.privacy]
}

run "the_latest_key" {
  command = plan

  variables {
    privacy = { hash = ["PatientID"], hash_key = { secret = "key", version = "latest" } }
  }

  expect_failures = [var.privacy]
}

run "a_secret_by_its_full_name" {
  command = plan

  variables {
    privacy = { hash = ["PatientID"], hash_key = { secret = "projects/p/secrets/key", version = "1" } }
  }

  expect_failures = [var.privacy]
}

run "a_hash_without_a_key" {
  command = plan

  variables {
    privacy = { hash = ["PatientID"] }
  }

  expect_failures = [var.privacy]
}

run "a_profile_without_a_key" {
  command = plan

  variables {
    privacy = { profile = "basic" }
  }

  expect_failures = [var.privacy]
}

run "options_without_a_group" {
  command = plan

  variables {
    config = { ignorePrivate = true }
  }

  expect_failures = [var.config]
}

run "a_config_that_is_no_object" {
  command = plan

  variables {
    config = "{}"
  }

  expect_failures = [var.config]
}

run "privacy_in_config" {
  command = plan

  variables {
    config = { privacy = { remove = ["PatientName"] } }
  }

  expect_failures = [var.config]
}

run "a_dataset_in_config" {
  command = plan

  variables {
    config = { bigQuery = { datasetId = "other" } }
  }

  expect_failures = [var.config]
}

run "reindexing_in_config" {
  command = plan

  variables {
    config = { events = { reindexOnMetadataUpdate = true } }
  }

  expect_failures = [var.config]
}

run "an_insert_that_outlives_the_event" {
  command = plan

  variables {
    config = { bigQuery = { timeoutSeconds = 51 } }
  }

  expect_failures = [var.config]
}

run "an_age_beyond_the_last_attempt" {
  command = plan

  variables {
    config = { retry = { maxAgeSeconds = 86400 } }
  }

  expect_failures = [var.config]
}

run "no_address" {
  command = plan

  variables {
    alerts = { emails = ["radiology"] }
  }

  expect_failures = [var.alerts]
}

run "no_channel" {
  command = plan

  variables {
    alerts = { notification_channels = ["123"] }
  }

  expect_failures = [var.alerts]
}

run "a_ratio_in_percent" {
  command = plan

  variables {
    alerts = { failed_ratio = 5 }
  }

  expect_failures = [var.alerts]
}

run "an_alert_below_one_retry" {
  command = plan

  variables {
    alerts = { oldest_unacked_minutes = 5 }
  }

  expect_failures = [var.alerts]
}

run "a_silence_of_days" {
  command = plan

  variables {
    alerts = { silence_hours = 48 }
  }

  expect_failures = [var.alerts]
}

run "a_key_by_its_short_name" {
  command = plan

  variables {
    kms_key = "my-key"
  }

  expect_failures = [var.kms_key]
}

run "a_connector_by_its_short_name" {
  command = plan

  variables {
    vpc_connector = { id = "my-connector" }
  }

  expect_failures = [var.vpc_connector]
}

run "a_bucket_whose_folders_can_be_renamed" {
  command = plan

  variables {
    bucket = { name = "scans", existing = true }
  }

  override_data {
    target = data.google_storage_bucket.existing
    values = { location = "EU", project_number = 123456789012, hierarchical_namespace = [{ enabled = true }] }
  }

  expect_failures = [google_storage_bucket_iam_member.runtime]
}

run "unless_nobody_renames_them" {
  command = plan

  variables {
    bucket = { name = "scans", existing = true, folders_are_never_renamed = true }
  }

  override_data {
    target = data.google_storage_bucket.existing
    values = { location = "EU", project_number = 123456789012, hierarchical_namespace = [{ enabled = true }] }
  }

  assert {
    condition     = local.bucket == "scans"
    error_message = "the bucket is another"
  }
}

# The project's number is known once its API is.
run "an_apply" {}

run "a_bucket_of_another_project" {
  command = plan

  variables {
    bucket = { name = "scans", existing = true }
  }

  override_data {
    target = data.google_storage_bucket.existing
    values = { location = "EU", project_number = 999999999999 }
  }

  expect_failures = [google_storage_bucket_iam_member.runtime]
}
