# What cannot work is refused before anything is made. Each run makes one mistake in each of several
# variables: a plan for each of them would take long.

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

run "mistakes_1" {
  command = plan

  variables {
    project_id    = "123456789012"                                                       # a project number
    region        = "europe-west4-a"                                                     # a zone
    suffix        = "eleven-char"                                                        # a long suffix
    bucket        = { existing = true }                                                  # an existing bucket without a name
    dataset       = { id = "my-dataset" }                                                # a dataset with a hyphen
    function      = { memory = "512" }                                                   # memory without a unit
    privacy       = { profile = "strict", hash_key = { secret = "key", version = "1" } } # an unknown profile
    alerts        = { emails = ["radiology"] }                                           # no address
    kms_key       = "my-key"                                                             # a key by its short name
    vpc_connector = { id = "my-connector" }                                              # a connector by its short name
    labels        = { Team = "Radiology" }                                               # capital letters
    identities    = { runtime = "serviceAccount:a@p.iam.gserviceaccount.com" }           # a member
    topic_regions = ["eu"]                                                               # a multi-region
    budget        = { billing_account = "Hospital", monthly_amount = 500 }               # an account by its name
    backfill      = { subnetwork = "default" }                                           # a subnetwork by its short name
  }

  expect_failures = [
    var.project_id,
    var.region,
    var.suffix,
    var.bucket,
    var.dataset,
    var.function,
    var.privacy,
    var.alerts,
    var.kms_key,
    var.vpc_connector,
    var.labels,
    var.identities,
    var.topic_regions,
    var.budget,
    var.backfill,
  ]
}

run "mistakes_2" {
  command = plan

  variables {
    suffix        = "west-"                                    # a suffix that ends in a hyphen
    bucket        = { name = "gs://scans" }                    # a URI
    dataset       = { instances_table_id = "other.instances" } # a table with a dot
    function      = { concurrency = 1.5 }                      # half a concurrent event
    privacy       = { remove = ["Patient<Name>"] }             # an attribute that would be escaped
    alerts        = { notification_channels = ["123"] }        # no channel
    vpc           = { network = "n" }                          # two ways out
    vpc_connector = { id = "projects/p/locations/l/connectors/c" }
    build         = { docker_repository = "projects/p/locations/us-central1/repositories/r" } # beside the key's own
    kms_key       = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
    budget        = { billing_account = "012345-6789AB-CDEF01", monthly_amount = 0.5 } # a budget of less than 1
  }

  expect_failures = [
    var.suffix,
    var.bucket,
    var.dataset,
    var.function,
    var.privacy,
    var.alerts,
    var.vpc,
    var.build,
    var.budget,
  ]
}

run "mistakes_3" {
  command = plan

  variables {
    dataset  = { instances_table_id = "events", dead_letter_table_id = "EVENTS" } # two tables of one name
    function = { cpu = "0.5" }                                                    # concurrency on a part of a cpu
    privacy  = { remove = ["Pâtient"] }                                           # an attribute beyond ascii
    alerts   = { failed_ratio = 5 }                                               # a ratio in percent
    build    = { docker_repository = "images" }                                   # a repository by its short name
  }

  expect_failures = [var.dataset, var.function, var.privacy, var.alerts, var.build]
}

run "mistakes_4" {
  command = plan

  variables {
    dataset  = { instances_table_id = "studies" }                                          # a table with the name of a view
    function = { min_instances = 5, max_instances = 4 }                                    # fewer instances at most than at least
    privacy  = { hash = ["PatientID"], hash_key = { secret = "key", version = "latest" } } # the latest key
    alerts   = { oldest_unacked_minutes = 5 }                                              # an alert below one retry
  }

  expect_failures = [var.dataset, var.function, var.privacy, var.alerts]
}

run "mistakes_5" {
  command = plan

  variables {
    function = { timeout_seconds = 59 }                                                                  # a timeout below the deadline
    privacy  = { hash = ["PatientID"], hash_key = { secret = "projects/p/secrets/key", version = "1" } } # a secret by its full name
    alerts   = { silence_hours = 48 }                                                                    # a silence of days
  }

  expect_failures = [var.function, var.privacy, var.alerts]
}

run "mistakes_6" {
  command = plan

  variables {
    config  = { limits = { deadlineSeconds = 111 } } # a deadline above the timeout
    privacy = { hash = ["PatientID"] }               # a hash without a key
  }

  expect_failures = [var.function, var.privacy]
}

run "mistakes_7" {
  command = plan

  variables {
    function = { timeout_seconds = 600 } # a timeout of the acknowledgement deadline
    privacy  = { profile = "basic" }     # a profile without a key
  }

  expect_failures = [var.function, var.privacy]
}

run "mistakes_8" {
  command = plan

  variables {
    config = { ignorePrivate = true } # options without a group
  }

  expect_failures = [var.config]
}

run "mistakes_9" {
  command = plan

  variables {
    config = "{}" # a config that is no object
  }

  expect_failures = [var.config]
}

run "mistakes_10" {
  command = plan

  variables {
    config = { privacy = { remove = ["PatientName"] } } # privacy in config
  }

  expect_failures = [var.config]
}

run "mistakes_11" {
  command = plan

  variables {
    config = { bigQuery = { datasetId = "other" } } # a dataset in config
  }

  expect_failures = [var.config]
}

run "mistakes_12" {
  command = plan

  variables {
    config = { events = { reindexOnMetadataUpdate = true } } # reindexing in config
  }

  expect_failures = [var.config]
}

run "mistakes_13" {
  command = plan

  variables {
    config = { bigQuery = { timeoutSeconds = 51 } } # an insert that outlives the event
  }

  expect_failures = [var.config]
}

run "mistakes_14" {
  command = plan

  variables {
    config = { retry = { maxAgeSeconds = 86400 } } # an age beyond the last attempt
  }

  expect_failures = [var.config]
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

  expect_failures = [google_cloudfunctions2_function.ingest]
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
    condition     = output.bucket == "scans"
    error_message = "the bucket is another"
  }
}

run "a_key_in_another_location_than_a_new_bucket" {
  command = plan

  variables {
    bucket  = { location = "US" }
    kms_key = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
  }

  expect_failures = [google_cloudfunctions2_function.ingest]
}

run "a_policy_tag_for_a_column_that_does_not_exist" {
  command = plan

  variables {
    dataset = { policy_tags = { PatientNames = "projects/p/locations/us/taxonomies/1/policyTags/2" } }
  }

  expect_failures = [google_bigquery_table.table]
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

  expect_failures = [google_cloudfunctions2_function.ingest]
}

run "privacy_options_for_rows_that_were_made_without" {
  command = plan

  variables {
    privacy = { remove = ["PatientName"] }
  }

  expect_failures = [google_bigquery_table.table]
}

run "mistakes_15" {
  command = plan

  variables {
    config = { input = { buckets = ["other-scans"] } } # buckets in config
  }

  expect_failures = [var.config]
}

run "mistakes_16" {
  command = plan

  variables {
    dataset = { readers = ["allUsers"] } # everyone
    alerts  = { dead_letters = 1.5 }     # half a dead letter
    build   = { worker_pool = "pool" }   # a pool by its short name
    vpc     = { tags = ["a"] }           # a vpc without a network
  }

  expect_failures = [var.dataset, var.alerts, var.build, var.vpc]
}

run "mistakes_17" {
  command = plan

  variables {
    dataset = { policy_tags = { PatientName = "restricted" } } # a tag by its short name
  }

  expect_failures = [var.dataset]
}

run "mistakes_18" {
  command = plan

  variables {
    dataset = { time_travel_hours = 24 } # less than BigQuery allows
  }

  expect_failures = [var.dataset]
}

run "mistakes_19" {
  command = plan

  variables {
    dataset = { storage_billing = "physical" } # lower case
  }

  expect_failures = [var.dataset]
}
