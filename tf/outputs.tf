output "function" {
  description = "Full name of the function."
  value       = google_cloudfunctions2_function.ingest.id
}

output "bucket" {
  description = "Bucket of the DICOM objects; null if there are several."
  value       = length(local.buckets) == 1 ? one(values(local.bucket_names)) : null
}

output "buckets" {
  description = "Each bucket by its key in `buckets` (`dicom` for the variable `bucket`): its `path`, its way `via` Eventarc or Pub/Sub, and its `subscriptions`."
  value = { for key, bucket in local.buckets : key => {
    path          = local.bucket_paths[key]
    via           = bucket.via
    subscriptions = sort([for name, subscription in local.subscriptions : subscription if split("/", name)[0] == key])
  } }
}

output "notifications" {
  description = "The command that creates the notifications of each bucket that is `managed_elsewhere`."
  value = { for key in local.managed_elsewhere : key => join(" ", compact([
    "gcloud storage buckets notifications create gs://${local.bucket_names[key]} --topic=${local.topics[key]} --skip-topic-setup",
    "--payload-format=json --event-types=${join(",", values(local.notification_types))}",
    local.buckets[key].prefix == null ? "" : "--object-prefix='${local.buckets[key].prefix}'",
  ])) }
}

output "dataset" {
  description = "The dataset, as `project.dataset`."
  value       = "${var.project_id}.${local.dataset_id}"
}

output "views" {
  description = "The views for analysts, each as `project.dataset.view`."
  value = {
    for name, view in local.views :
    name => "${var.project_id}.${local.dataset_id}.${view.tableReference.tableId}"
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
  description = "The subscriptions: of a trigger by type of event, or by key and type for other buckets than `dicom`; of a bucket that comes via Pub/Sub by key."
  value       = { for name, subscription in local.subscriptions : trimprefix(name, "dicom/") => subscription }
}

output "dead_letter_topic" {
  description = "Topic of the events that were never acknowledged."
  value       = google_pubsub_topic.dead_letter.id
}

output "undelivered" {
  description = "The table of the events that were never acknowledged, with names of objects, as `project.dataset.table`; null unless `privacy.path` is `hash`."
  value       = local.names_are_hashed ? "${var.project_id}.${local.undelivered.dataset_id}.${local.undelivered.table_id}" : null
}

output "dashboard_url" {
  description = "The dashboard, in the console."
  value       = "https://console.cloud.google.com/monitoring/dashboards/builder/${basename(google_monitoring_dashboard.this.id)}?project=${var.project_id}"
}

output "backfill" {
  description = "The command that indexes what the bucket held before, on Dataflow, with a line for each bucket; null without `backfill.enabled`."
  value = var.backfill.enabled ? join("\n", [for key, path in local.bucket_paths : join(" ", concat([
    "dcm2bq backfill ${local.buckets[key].prefix == null ? path : "'${path}'"} --staging gs://${google_storage_bucket.staging[0].name}/backfill",
    "--runner DataflowRunner --project ${var.project_id} --region ${var.region}",
    "--service-account ${local.emails.backfill}",
  ], length(local.beam_options) > 0 ? ["--"] : [], local.beam_options))]) : null
}

output "archive" {
  description = "The archive that the function is built from, on this machine."
  value       = data.archive_file.source.output_path
}
