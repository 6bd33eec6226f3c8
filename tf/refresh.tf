# `dcm2bq refresh` as a scheduled query of BigQuery. Any other refresh may run beside it.
locals {
  refresh_names  = merge(local.names, { since = "since" })
  refresh_script = templatefile("${path.module}/refresh.sql", { for name in ["refresh_from", "refresh"] : name => templatefile("${local.schema}/objects/${name}.sql", local.refresh_names) })

  # As metrics and log lines name it.
  refresh_id = one([for config in google_bigquery_data_transfer_config.refresh : basename(config.name)])

  # Two runs are missing then. Queries of objects_live fail after 168 hours.
  refresh_is_late_hours = 2 * var.refresh.every_hours
}

# A script cannot have a destination. It needs no key either: it stores nothing but the rows of
# `objects`, which the dataset's key encrypts.
resource "google_bigquery_data_transfer_config" "refresh" {
  count = var.refresh.enabled ? 1 : 0

  project              = var.project_id
  location             = local.dataset_location
  display_name         = "${local.name}: refresh of ${local.dataset_id}.objects"
  data_source_id       = "scheduled_query"
  schedule             = "every ${var.refresh.every_hours} hours" # from the first apply on, which runs it at once
  service_account_name = local.emails.refresh
  disabled             = false # whoever pauses it by hand sees that in a plan
  params               = { query = local.refresh_script }

  depends_on = [time_sleep.grants, terraform_data.columns]
}
