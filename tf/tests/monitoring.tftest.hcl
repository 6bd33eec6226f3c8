# Metrics, alerts and the dashboard.

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
  alerts = {
    emails                = ["radiology@example.org"]
    notification_channels = ["projects/my-project/notificationChannels/42"]
    silence_hours         = 12
  }
}

run "metrics_count_the_log_lines_of_this_function" {
  assert {
    condition = jsonencode({ for key, metric in google_logging_metric.this : key => [
      metric.name, metric.filter, coalesce(metric.value_extractor, "-"), metric.label_extractors, metric.metric_descriptor[0].value_type,
      ] if !startswith(key, "ignored_") }) == jsonencode({
      events = [
        "dcm2bq/events",
        "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"dcm2bq\" AND jsonPayload.outcome:*",
        "-", { outcome = "EXTRACT(jsonPayload.outcome)" }, "INT64",
      ]
      dead_letters = [
        "dcm2bq/dead_letters",
        "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"dcm2bq\" AND (jsonPayload.outcome=\"dead_lettered\" OR jsonPayload.archive.dead_letters>0)",
        "-", { error_type = "EXTRACT(jsonPayload.error_type)" }, "INT64",
      ]
      bytes_read = [
        "dcm2bq/bytes_read",
        "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"dcm2bq\" AND jsonPayload.bytes_read>=0",
        "EXTRACT(jsonPayload.bytes_read)", {}, "DISTRIBUTION",
      ]
      milliseconds = [
        "dcm2bq/milliseconds",
        "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"dcm2bq\" AND jsonPayload.milliseconds>=0",
        "EXTRACT(jsonPayload.milliseconds)", { outcome = "EXTRACT(jsonPayload.outcome)" }, "DISTRIBUTION",
      ]
    })
    error_message = "the metrics are others"
  }
  assert {
    condition = jsonencode({ for key, metric in google_logging_metric.this : key => [metric.filter, metric.value_extractor, metric.metric_descriptor[0].value_type] if startswith(key, "ignored_") }) == jsonencode({
      for reason in ["content", "empty", "folder", "metadata", "name", "temporary"] : "ignored_${reason}" => [
        "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"dcm2bq\" AND jsonPayload.message=\"events ignored\" AND jsonPayload.ignored.${reason}>=0",
        "EXTRACT(jsonPayload.ignored.${reason})", "DISTRIBUTION",
      ]
    })
    error_message = "ignored events are counted by other metrics"
  }
  assert {
    condition = alltrue([for metric in google_logging_metric.this :
      toset(keys(metric.label_extractors)) == toset(metric.metric_descriptor[0].labels[*].key)
    ])
    error_message = "a label is extracted and not described, or the reverse"
  }

  assert {
    condition = alltrue([for policy in [
      google_monitoring_alert_policy.dead_letters,
      google_monitoring_alert_policy.exhausted,
      google_monitoring_alert_policy.failed,
      google_monitoring_alert_policy.oldest_unacked,
      google_monitoring_alert_policy.dead_letters_stuck,
      google_monitoring_alert_policy.silence[0],
      ] : policy.notification_channels == tolist([
        "projects/my-project/notificationChannels/42",
        google_monitoring_notification_channel.email["radiology@example.org"].id,
    ])])
    error_message = "an alert reaches nobody, or somebody else"
  }
  assert {
    condition     = google_monitoring_notification_channel.email["radiology@example.org"].labels == tomap({ email_address = "radiology@example.org" })
    error_message = "the channel leads elsewhere"
  }

  assert {
    condition = [
      google_monitoring_alert_policy.dead_letters.conditions[0].condition_threshold[0].filter,
      google_monitoring_alert_policy.dead_letters.conditions[0].condition_threshold[0].threshold_value,
      google_monitoring_alert_policy.dead_letters.conditions[0].condition_threshold[0].aggregations[0].alignment_period,
      ] == [
      "resource.type = \"cloud_run_revision\" AND metric.type = \"logging.googleapis.com/user/dcm2bq/dead_letters\"", 10, "86400s",
    ]
    error_message = "a stray file a day raises an alert, or a broken scanner does not"
  }
  assert {
    condition = google_monitoring_alert_policy.failed.conditions[0].condition_prometheus_query_language[0].query == join("", [
      "sum(increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=\"dcm2bq\",response_code_class!=\"2xx\",response_code!=\"429\"}[10m]))",
      " / sum(increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=\"dcm2bq\"}[10m])) > 0.05",
      " and sum(increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=\"dcm2bq\",response_code_class!=\"2xx\",response_code!=\"429\"}[10m])) > 20",
    ])
    error_message = "the alert on failures asks for something else"
  }
  assert {
    condition     = google_monitoring_alert_policy.silence[0].conditions[0].condition_prometheus_query_language[0].query == "(sum(increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=\"dcm2bq\"}[12h])) or vector(0)) < 1"
    error_message = "the alert on silence asks for something else"
  }
  assert {
    condition = { for name, policy in { waits = google_monitoring_alert_policy.oldest_unacked, stuck = google_monitoring_alert_policy.dead_letters_stuck, exhausted = google_monitoring_alert_policy.exhausted } :
      name => "${policy.conditions[0].condition_threshold[0].filter} > ${policy.conditions[0].condition_threshold[0].threshold_value}"
      } == {
      waits     = "resource.type = \"pubsub_subscription\" AND metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND resource.labels.subscription_id = monitoring.regex.full_match(\"none-of-dcm2bq-archived|none-of-dcm2bq-deleted|none-of-dcm2bq-finalized\") > 3600"
      stuck     = "resource.type = \"pubsub_subscription\" AND metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND resource.labels.subscription_id = \"dcm2bq-dead-letter\" > 3600"
      exhausted = "resource.type = \"pubsub_subscription\" AND metric.type = \"pubsub.googleapis.com/subscription/dead_letter_message_count\" AND resource.labels.subscription_id = monitoring.regex.full_match(\"none-of-dcm2bq-archived|none-of-dcm2bq-deleted|none-of-dcm2bq-finalized\") > 0"
    }
    error_message = "the alerts on subscriptions look at something else"
  }

  assert {
    condition = [for tile in jsondecode(google_monitoring_dashboard.this.dashboard_json).mosaicLayout.tiles : tile.widget.title] == [
      "Events in the last hour",
      "Events that wait",
      "Oldest event that waits",
      "Dead letters in the last day",
      "Events by outcome",
      "Dead letters by error",
      "Answers of the function",
      "Age of the oldest event, by subscription",
      "Time for an event",
      "Bytes read from an object",
      "Instances",
      "CPU of an instance",
      "Memory of an instance",
      "Deliveries, by subscription",
      "Ignored in the hour before, by reason",
      "What went wrong",
    ]
    error_message = "the dashboard shows something else"
  }
  assert {
    condition = toset(regexall("logging.googleapis.com/user/[a-z0-9/_-]+", google_monitoring_dashboard.this.dashboard_json)) == toset([
      for key, metric in google_logging_metric.this : "logging.googleapis.com/user/${metric.name}" if !startswith(key, "ignored_")
    ])
    error_message = "the dashboard shows metrics that are not there, or leaves one out"
  }
  assert {
    condition = toset(regexall("logging_googleapis_com:user_dcm2bq_[a-z0-9_]+", google_monitoring_dashboard.this.dashboard_json)) == toset([
      for reason in ["content", "empty", "folder", "metadata", "name", "temporary"] : "logging_googleapis_com:user_dcm2bq_ignored_${reason}_sum"
    ])
    error_message = "the dashboard leaves a reason out for which events are ignored"
  }
}

run "by_default_silence_raises_no_alert" {
  command = plan

  variables {
    alerts = {}
  }

  assert {
    condition     = length(google_monitoring_alert_policy.silence) == 0 && length(google_monitoring_notification_channel.email) == 0
    error_message = "there is an alert, or a channel, that nobody asked for"
  }
}
