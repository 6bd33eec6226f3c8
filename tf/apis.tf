resource "google_project_service" "this" {
  for_each = toset(concat(
    [
      "artifactregistry.googleapis.com", # holds the function's image
      "bigquery.googleapis.com",
      "cloudbuild.googleapis.com", # builds the image
      "cloudfunctions.googleapis.com",
      "cloudresourcemanager.googleapis.com",
      "eventarc.googleapis.com",
      "iam.googleapis.com",
      "logging.googleapis.com",
      "monitoring.googleapis.com",
      "pubsub.googleapis.com", # carries the events
      "run.googleapis.com",    # runs the function
      "storage.googleapis.com",
    ],
    var.privacy.hash_key == null ? [] : ["secretmanager.googleapis.com"],
    var.kms_key == null ? [] : ["cloudkms.googleapis.com"],
    var.vpc == null && var.backfill.subnetwork == null ? [] : ["compute.googleapis.com"],
    var.backfill.enabled ? ["compute.googleapis.com", "dataflow.googleapis.com"] : [],
    var.refresh.enabled ? ["bigquerydatatransfer.googleapis.com"] : [], # schedules queries
    var.budget == null ? [] : ["billingbudgets.googleapis.com"],
  ))

  project = var.project_id
  service = each.key

  # Other users of the project may depend on them.
  disable_on_destroy = false
}
