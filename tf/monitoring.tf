# Metrics from the function's log lines (dcm2bq/log.py), one line per event; alerts; a dashboard. Where
# Google has a metric of the same, that is used: it also counts what never reaches the code. Ignored
# events have a line each at DEBUG only, and at INFO a line with their counts, by reason, for every
# minute: the sums of its metrics are the numbers of events. docs/OPERATIONS.md explains each alert.
locals {
  ignored = ["name", "content", "empty", "folder", "metadata", "temporary"]

  lines_of_function = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.name}\""

  subscription_pattern = join("|", sort(values(local.subscriptions)))

  # A request that finds all instances busy is refused with 429, delivered again, and no failure: a bulk
  # upload has thousands. What waits too long because of them is the alert "events wait".
  requests = "run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\",service_name=\"${local.name}\"}"
  failures = replace(local.requests, "}", ",response_code_class!=\"2xx\",response_code!=\"429\"}")

  # The subscriptions of each bucket, as a pattern.
  bucket_patterns = { for key in keys(local.buckets) : key => join("|", sort([for name, subscription in local.subscriptions : subscription if split("/", name)[0] == key])) }

  metrics = merge(local.metrics_of_ignored, {
    events = {
      description = "Events that were answered, by outcome"
      filter      = "jsonPayload.outcome:*"
      value       = null
      unit        = "1"
      labels      = { outcome = "What became of the event" }
    }
    dead_letters = {
      description = "Events that left dead letters of the function, by error"
      filter      = "(jsonPayload.outcome=\"dead_lettered\" OR jsonPayload.archive.dead_letters>0)"
      value       = null
      unit        = "1"
      labels      = { error_type = "The type of the last error" }
    }
    bytes_read = {
      description = "Bytes read from an object"
      filter      = "jsonPayload.bytes_read>=0"
      value       = "bytes_read"
      unit        = "By"
      labels      = {}
    }
    milliseconds = {
      description = "Time in the function for one event, by outcome"
      filter      = "jsonPayload.milliseconds>=0"
      value       = "milliseconds"
      unit        = "ms"
      labels      = { outcome = "What became of the event" }
    }
  })

  metrics_of_ignored = { for reason in local.ignored : "ignored_${reason}" => {
    description = "Events ignored, by process and minute; reason: ${reason}"
    filter      = "jsonPayload.message=\"events ignored\" AND jsonPayload.ignored.${reason}>=0"
    value       = "ignored.${reason}"
    unit        = "1"
    labels      = {}
  } }
}

resource "google_logging_metric" "this" {
  for_each = local.metrics

  project          = var.project_id
  name             = "${local.name}/${each.key}"
  description      = each.value.description
  filter           = "${local.lines_of_function} AND ${each.value.filter}"
  value_extractor  = each.value.value == null ? null : "EXTRACT(jsonPayload.${each.value.value})"
  label_extractors = { for key in keys(each.value.labels) : key => "EXTRACT(jsonPayload.${key})" }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = each.value.value == null ? "INT64" : "DISTRIBUTION"
    unit        = each.value.unit

    dynamic "labels" {
      for_each = each.value.labels

      content {
        key         = labels.key
        value_type  = "STRING"
        description = labels.value
      }
    }
  }

  # From 1 to 2^40, which suits bytes, milliseconds and counts.
  dynamic "bucket_options" {
    for_each = each.value.value[*]

    content {
      exponential_buckets {
        scale              = 1
        growth_factor      = 2
        num_finite_buckets = 40
      }
    }
  }

  depends_on = [google_project_service.this]
}

resource "google_monitoring_notification_channel" "email" {
  for_each = toset(var.alerts.emails)

  project      = var.project_id
  display_name = "${local.name}: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
  user_labels  = local.labels
  depends_on   = [google_project_service.this]
}

locals {
  channels = concat(var.alerts.notification_channels, [for channel in google_monitoring_notification_channel.email : channel.id])
}

# A stray file is a dead letter too, and no reason to wake anyone: the alert counts over a day.
resource "google_monitoring_alert_policy" "dead_letters" {
  project               = var.project_id
  display_name          = "${local.name}: dead letters"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = "the function gave up on more than ${var.alerts.dead_letters} events in a day"

    condition_threshold {
      filter          = "resource.type = \"cloud_run_revision\" AND metric.type = \"logging.googleapis.com/user/${google_logging_metric.this["dead_letters"].name}\""
      comparison      = "COMPARISON_GT"
      threshold_value = var.alerts.dead_letters
      duration        = "0s"

      aggregations {
        alignment_period     = "86400s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  documentation {
    content = "Objects could not be converted, or events failed for too long. The view ${local.dataset_id}.dead_letters lists them with the reasons. See docs/OPERATIONS.md, \"Dead letters\"."
  }
}

resource "google_monitoring_alert_policy" "exhausted" {
  project               = var.project_id
  display_name          = "${local.name}: delivery exhausted"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = "an event went to the dead-letter topic"

    condition_threshold {
      filter          = "resource.type = \"pubsub_subscription\" AND metric.type = \"pubsub.googleapis.com/subscription/dead_letter_message_count\" AND resource.labels.subscription_id = monitoring.regex.full_match(\"${local.subscription_pattern}\")"
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
        group_by_fields      = ["resource.label.subscription_id"]
      }
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  documentation {
    content = "100 deliveries failed: the function was down, refused or crashed for hours. See docs/OPERATIONS.md, \"Delivery exhausted\"."
  }
}

resource "google_monitoring_alert_policy" "failed" {
  project               = var.project_id
  display_name          = "${local.name}: events fail"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = "more than ${var.alerts.failed_ratio * 100} % of the deliveries fail"

    condition_prometheus_query_language {
      query = join(" ", [
        "sum(increase(${local.failures}[10m])) / sum(increase(${local.requests}[10m])) > ${var.alerts.failed_ratio}",
        "and sum(increase(${local.failures}[10m])) > ${var.alerts.failed_deliveries}",
      ])
      duration                  = "600s"
      evaluation_interval       = "60s"
      disable_metric_validation = true # the first apply precedes the first request
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  documentation {
    content = "The events are delivered again, for about 15 hours. The log lines with the outcome \"failed\" say why. See docs/OPERATIONS.md, \"Events fail\"."
  }

  depends_on = [google_project_service.this]
}

resource "google_monitoring_alert_policy" "oldest_unacked" {
  project               = var.project_id
  display_name          = "${local.name}: events wait"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = "an event waits for more than ${var.alerts.oldest_unacked_minutes} minutes"

    condition_threshold {
      filter          = "resource.type = \"pubsub_subscription\" AND metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND resource.labels.subscription_id = monitoring.regex.full_match(\"${local.subscription_pattern}\")"
      comparison      = "COMPARISON_GT"
      threshold_value = var.alerts.oldest_unacked_minutes * 60
      duration        = "300s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_MAX"
        cross_series_reducer = "REDUCE_MAX"
        group_by_fields      = ["resource.label.subscription_id"]
      }
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  documentation {
    content = "The function does not keep up, or some events fail again and again. See docs/OPERATIONS.md, \"Events wait\"."
  }
}

resource "google_monitoring_alert_policy" "dead_letters_stuck" {
  project               = var.project_id
  display_name          = "${local.name}: dead letters are stuck"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = "a message of the dead-letter topic is not in the table after an hour"

    condition_threshold {
      filter          = "resource.type = \"pubsub_subscription\" AND metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND resource.labels.subscription_id = \"${google_pubsub_subscription.dead_letter.name}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 3600
      duration        = "300s"

      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  documentation {
    content = "Pub/Sub cannot write the table dead_letter; after 7 days it drops the message. See docs/OPERATIONS.md, \"Dead letters are stuck\"."
  }
}

resource "google_monitoring_alert_policy" "silence" {
  count = var.alerts.silence_hours == null ? 0 : 1

  project               = var.project_id
  display_name          = "${local.name}: no events"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = "no event arrived for ${var.alerts.silence_hours} hours"

    condition_prometheus_query_language {
      # One bucket by the function's requests; several by the pushes of their subscriptions, since the
      # uploads of one would hide that another is silent.
      query = length(local.buckets) == 1 ? "(sum(increase(${local.requests}[${var.alerts.silence_hours}h])) or vector(0)) < 1" : join(" or ", [
        for key, pattern in local.bucket_patterns :
        "label_replace((sum(increase(pubsub_googleapis_com:subscription_push_request_count{monitored_resource=\"pubsub_subscription\",subscription_id=~\"${pattern}\"}[${var.alerts.silence_hours}h])) or vector(0)) < 1, \"bucket\", \"${key}\", \"\", \"\")"
      ])
      duration                  = "0s"
      evaluation_interval       = "300s"
      disable_metric_validation = true
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  documentation {
    content = "Nothing was uploaded, or a trigger or notification was lost. See docs/OPERATIONS.md, \"No events\"."
  }

  depends_on = [google_project_service.this]
}

# A refresh that fails changes nothing, and the next one does the work of both.
resource "google_monitoring_alert_policy" "refresh_failed" {
  count = var.refresh.enabled ? 1 : 0

  project               = var.project_id
  display_name          = "${local.name}: refresh fails"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = "a refresh of ${local.dataset_id}.objects did not succeed"

    condition_threshold {
      filter          = "resource.type = \"bigquery_dts_config\" AND metric.type = \"bigquerydatatransfer.googleapis.com/transfer_config/completed_runs\" AND resource.labels.config_id = \"${local.refresh_id}\" AND metric.labels.completion_state != \"SUCCEEDED\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  documentation {
    content = "Nothing is wrong or missing yet: ${local.dataset_id}.objects_live is exact for seven days after the last refresh. See docs/OPERATIONS.md, \"Refresh fails\"."
  }
}

resource "google_monitoring_alert_policy" "refresh_late" {
  count = var.refresh.enabled ? 1 : 0

  project               = var.project_id
  display_name          = "${local.name}: refresh is late"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = "no refresh of ${local.dataset_id}.objects succeeded for ${local.refresh_is_late_hours} hours"

    condition_prometheus_query_language {
      query                     = "(sum(increase(bigquerydatatransfer_googleapis_com:transfer_config_completed_runs{monitored_resource=\"bigquery_dts_config\",config_id=\"${local.refresh_id}\",completion_state=\"SUCCEEDED\"}[${local.refresh_is_late_hours}h])) or vector(0)) == 0"
      duration                  = "3600s" # for the first run, and for a long one
      evaluation_interval       = "300s"
      disable_metric_validation = true
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  documentation {
    content = "Seven days after the last refresh, every query of ${local.dataset_id}.objects_live fails. See docs/OPERATIONS.md, \"Refresh is late\"."
  }
}

resource "google_monitoring_dashboard" "this" {
  project = var.project_id

  # Decoded and encoded again so that a mistake in the file fails the plan.
  dashboard_json = jsonencode(jsondecode(templatefile("${path.module}/dashboard.json", {
    name                   = local.name
    project                = var.project_id
    buckets                = local.all_buckets
    subscriptions          = local.subscription_pattern
    dead_letter            = google_pubsub_subscription.dead_letter.name
    oldest_unacked_seconds = var.alerts.oldest_unacked_minutes * 60

    ignored = jsonencode([for reason in local.ignored : {
      timeSeriesQuery = {
        # PromQL: only it sums the values of a distribution. It names metrics without / and -.
        prometheusQuery = "sum(increase(logging_googleapis_com:user_${replace(google_logging_metric.this["ignored_${reason}"].name, "/[^a-z0-9]/", "_")}_sum{monitored_resource=\"cloud_run_revision\"}[1h]))"
      }
      plotType       = "LINE"
      legendTemplate = reason
    }])
  })))

  depends_on = [google_project_service.this]
}
