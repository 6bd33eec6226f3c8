# The scheduled refresh of objects, and none of it by default.

mock_provider "google" {
  source = "./tests/mocks/google"
}

mock_provider "google-beta" {
  source = "./tests/mocks/beta"
}

mock_provider "time" {}

variables {
  project_id = "my-project"
  region     = "europe-west4"
  python     = "./tests/python"
}

run "without_it_nothing_is_scheduled" {
  assert {
    condition = sum([for made in [
      google_bigquery_data_transfer_config.refresh,
      google_bigquery_table_iam_member.refresh,
      google_monitoring_alert_policy.refresh_failed,
      google_monitoring_alert_policy.refresh_late,
      [for grant in output.grants : grant if strcontains(grant.member, "refresh") || strcontains(grant.member, "transfer")],
      [for name in keys(google_service_account.this) : name if name == "refresh"],
      [for name in keys(google_project_service_identity.agent) : name if name == "bigquerydatatransfer"],
      [for name in keys(google_project_service.this) : name if strcontains(name, "transfer")],
    ] : length(made)]) == 0
    error_message = "something is made for a refresh by default"
  }
}

run "the_refresh_is_scheduled_where_the_dataset_is" {
  variables {
    refresh = { enabled = true, every_hours = 6 }
    bucket  = { location = "EU" }
    suffix  = "west-1"
    dataset = { instances_table_id = "headers" }
    alerts  = { notification_channels = ["projects/my-project/notificationChannels/42"] }
  }

  assert {
    condition = [
      google_bigquery_data_transfer_config.refresh[0].data_source_id,
      google_bigquery_data_transfer_config.refresh[0].display_name,
      google_bigquery_data_transfer_config.refresh[0].schedule,
      google_bigquery_data_transfer_config.refresh[0].location,
      google_bigquery_data_transfer_config.refresh[0].service_account_name,
    ] == ["scheduled_query", "dcm2bq-west-1: refresh of dicom_west_1.objects", "every 6 hours", "EU", "refresh@"]
    error_message = "something else is scheduled"
  }
  assert {
    condition     = google_bigquery_data_transfer_config.refresh[0].destination_dataset_id == null
    error_message = "a script cannot have a destination"
  }
  assert {
    condition     = keys(google_bigquery_data_transfer_config.refresh[0].params) == tolist(["query"])
    error_message = "the scheduled query has other parameters"
  }
  assert {
    condition     = distinct(regexall("`my-project[^`]*`", google_bigquery_data_transfer_config.refresh[0].params.query)) == tolist(["`my-project.dicom_west_1.objects`", "`my-project.dicom_west_1.headers`"])
    error_message = "the refresh reads or changes other tables"
  }
  assert {
    condition     = contains(keys(google_project_service.this), "bigquerydatatransfer.googleapis.com")
    error_message = "the API is not enabled"
  }
  assert {
    condition = { for name, grant in google_bigquery_table_iam_member.refresh : name => [grant.dataset_id, grant.table_id, grant.role, grant.member] } == {
      instances = ["dicom_west_1", "headers", "roles/bigquery.dataViewer", "serviceAccount:refresh"]
      objects   = ["dicom_west_1", "objects", "roles/bigquery.dataEditor", "serviceAccount:refresh"]
    }
    error_message = "the refresh has other rights"
  }
  assert {
    condition = [for policy in [google_monitoring_alert_policy.refresh_failed[0], google_monitoring_alert_policy.refresh_late[0]] : policy.notification_channels] == [
      tolist(["projects/my-project/notificationChannels/42"]), tolist(["projects/my-project/notificationChannels/42"]),
    ]
    error_message = "an alert reaches nobody, or somebody else"
  }
  assert {
    condition = [
      google_monitoring_alert_policy.refresh_failed[0].conditions[0].condition_threshold[0].filter,
      google_monitoring_alert_policy.refresh_failed[0].conditions[0].condition_threshold[0].threshold_value,
      ] == [
      "resource.type = \"bigquery_dts_config\" AND metric.type = \"bigquerydatatransfer.googleapis.com/transfer_config/completed_runs\" AND resource.labels.config_id = \"the-refresh\" AND metric.labels.completion_state != \"SUCCEEDED\"", 0,
    ]
    error_message = "the alert on failed refreshes looks at something else"
  }
  assert {
    condition = [
      google_monitoring_alert_policy.refresh_late[0].conditions[0].condition_prometheus_query_language[0].query,
      google_monitoring_alert_policy.refresh_late[0].conditions[0].condition_prometheus_query_language[0].duration,
      ] == [
      "(sum(increase(bigquerydatatransfer_googleapis_com:transfer_config_completed_runs{monitored_resource=\"bigquery_dts_config\",config_id=\"the-refresh\",completion_state=\"SUCCEEDED\"}[12h])) or vector(0)) == 0", "3600s",
    ]
    error_message = "the alert on late refreshes asks for something else"
  }
}

run "once_a_day_by_default_and_by_an_existing_account" {
  variables {
    refresh    = { enabled = true }
    identities = { refresh = "r@p.iam.gserviceaccount.com" }
  }

  assert {
    condition     = [google_bigquery_data_transfer_config.refresh[0].schedule, google_bigquery_data_transfer_config.refresh[0].service_account_name] == ["every 24 hours", "r@p.iam.gserviceaccount.com"]
    error_message = "the refresh has another pace or identity"
  }
  assert {
    condition     = !contains(keys(google_service_account.this), "refresh") && google_bigquery_table_iam_member.refresh["objects"].member == "serviceAccount:r@p.iam.gserviceaccount.com"
    error_message = "an account is created, or another has the rights"
  }
  assert {
    condition     = local.refresh_is_late_hours == 48
    error_message = "the alert comes when objects_live is about to fail, or at every run"
  }
}

run "only_the_owner_of_a_dataset_refreshes_it" {
  command = plan

  variables {
    refresh = { enabled = true }
    dataset = { id = "dicom", existing = true }
  }

  expect_failures = [var.refresh]
}

run "the_pace_is_in_whole_hours" {
  command = plan

  variables {
    refresh = { every_hours = 0.5 }
  }

  expect_failures = [var.refresh]
}
