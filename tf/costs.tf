# What limits the bill, or tells of it. docs/DEPLOY.md, "What it costs", says which of these is worth
# what.

# Cloud Run logs each request, which is each event. The function's own line for an event says more.
resource "google_logging_project_exclusion" "requests" {
  count = var.request_logs ? 0 : 1

  project     = var.project_id
  name        = "${local.name}-requests"
  description = "Cloud Run's log line for each event of ${local.name}; failed requests are kept"
  filter      = "${local.lines_of_function} AND log_id(\"run.googleapis.com/requests\") AND httpRequest.status<400"
  depends_on  = [google_project_service.this]
}

# A budget warns; it does not stop anything. It counts the whole project.
resource "google_billing_budget" "this" {
  for_each = { for name, budget in { project = var.budget } : name => budget if budget != null }

  billing_account = each.value.billing_account
  display_name    = "${local.name}: project ${var.project_id}"

  budget_filter {
    projects = ["projects/${data.google_project.this.number}"]
  }

  amount {
    specified_amount {
      units = tostring(each.value.monthly_amount)
    }
  }

  dynamic "threshold_rules" {
    for_each = each.value.thresholds

    content {
      threshold_percent = threshold_rules.value
    }
  }

  # Without channels, the administrators of the billing account are notified.
  dynamic "all_updates_rule" {
    for_each = length(local.channels) > 0 ? [local.channels] : []

    content {
      monitoring_notification_channels = all_updates_rule.value
      disable_default_iam_recipients   = true
    }
  }

  depends_on = [google_project_service.this]
}
