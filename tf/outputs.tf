output "function" {
  description = "Full name of the function."
  value       = google_cloudfunctions2_function.ingest.id
}

output "bucket" {
  description = "Bucket of the DICOM objects."
  value       = local.bucket
}

output "dataset" {
  description = "The dataset, as `project.dataset`."
  value       = "${var.project_id}.${google_bigquery_dataset.dicom.dataset_id}"
}

output "views" {
  description = "The views for analysts, each as `project.dataset.view`."
  value = {
    for name, view in local.created_views :
    name => "${view.project}.${view.dataset_id}.${view.table_id}"
  }
}

output "views_left_out" {
  description = "Views that the dataset cannot have: they read headers with `jsonOutput` options `format` flat, `useCommonNames` true and `useArrayWithSingleValue` false."
  value       = local.left_out
}

output "config" {
  description = "The configuration in force, for `DCM2BQ_CONFIG` on the command line; with a key of the hash, it names the key's secret."
  value       = jsonencode(local.config_of_commands)
}

output "grants" {
  description = "Every grant that the pipeline needs: who (`member`) has which `role` `on` what, under which `condition`."
  value       = local.grants
}

output "runtime_service_account" {
  description = "The service account that the function runs as."
  value       = local.emails.runtime
}

output "subscriptions" {
  description = "The subscription of each trigger, by type of event."
  value       = local.subscriptions
}

output "dead_letter_topic" {
  description = "Topic of the events that were never acknowledged."
  value       = google_pubsub_topic.dead_letter.id
}

output "dashboard_url" {
  description = "The dashboard, in the console."
  value       = "https://console.cloud.google.com/monitoring/dashboards/builder/${basename(google_monitoring_dashboard.this.id)}?project=${var.project_id}"
}

output "backfill" {
  description = "The command that indexes what the bucket held before, on Dataflow; null without `backfill.enabled`."
  value = var.backfill.enabled ? join(" ", concat([
    "dcm2bq backfill gs://${local.bucket} --staging gs://${google_storage_bucket.staging[0].name}/backfill",
    "--runner DataflowRunner --project ${var.project_id} --region ${var.region}",
    "--service-account ${local.emails.backfill}",
  ], length(local.beam_options) > 0 ? ["--"] : [], local.beam_options)) : null
}

output "archive" {
  description = "The archive that the function is built from, on this machine."
  value       = data.archive_file.source.output_path
}
