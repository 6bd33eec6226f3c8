# Who the parts run as: service accounts made here, or those that `identities` names, and the service
# agents of Google's own. What each may do is in grants.tf.

resource "google_service_account" "this" {
  for_each = {
    for name, purpose in {
      runtime  = { id = "run", display_name = "the function runs as it" }
      trigger  = { id = "trigger", display_name = "Eventarc and Pub/Sub deliver events as it" }
      build    = { id = "build", display_name = "Cloud Build builds the function as it" }
      backfill = { id = "backfill", display_name = "the workers of a backfill run as it" }
      refresh  = { id = "refresh", display_name = "the scheduled query runs as it" }
    } : name => purpose if var.identities[name] == null && lookup({ backfill = var.backfill.enabled, refresh = var.refresh.enabled }, name, true)
  }

  project      = var.project_id
  account_id   = join("-", compact(["dcm2bq-${each.value.id}", var.suffix]))
  display_name = "${local.name}: ${each.value.display_name}"
  depends_on   = [google_project_service.this]
}

# In an empty project these agents do not exist until they are first used.
resource "google_project_service_identity" "agent" {
  provider = google-beta
  for_each = toset(concat(["eventarc", "pubsub"], var.refresh.enabled ? ["bigquerydatatransfer"] : [], var.kms_key == null ? [] : ["artifactregistry", "cloudfunctions", "run"]))

  project    = var.project_id
  service    = "${each.key}.googleapis.com"
  depends_on = [google_project_service.this]
}

# Looking it up creates it. The id comes from the API's resource, so that this waits for it.
data "google_storage_project_service_account" "this" {
  project = split("/", google_project_service.this["storage.googleapis.com"].id)[0]
}

data "google_bigquery_default_service_account" "this" {
  count = length(local.kms_key)

  project = split("/", google_project_service.this["bigquery.googleapis.com"].id)[0]
}

locals {
  emails = merge(
    { for name, email in var.identities : name => email if email != null },
    { for name, account in google_service_account.this : name => account.email },
  )

  members = merge(
    { for name, email in var.identities : name => "serviceAccount:${email}" if email != null },
    { for name, account in google_service_account.this : name => account.member },
    { for name, agent in google_project_service_identity.agent : name => agent.member },
    { storage = data.google_storage_project_service_account.this.member },
    { for member in data.google_bigquery_default_service_account.this[*].member : "bigquery" => member },
  )

  # Cloud Functions expects the full name of the build's account, which may be of another project.
  build_project = try(regex("@([a-z0-9-]+)\\.iam\\.gserviceaccount\\.com$", var.identities.build)[0], var.project_id)
  build_account = try(google_service_account.this["build"].id, "projects/${local.build_project}/serviceAccounts/${var.identities.build}")
}

# A new identity is unknown to IAM for up to a minute; Eventarc and Cloud Functions do not retry what
# fails because of that.
resource "time_sleep" "identities" {
  create_duration = "60s"

  triggers = merge(
    { for name, account in google_service_account.this : name => account.id },
    { for name, agent in google_project_service_identity.agent : name => agent.id },
  )

  depends_on = [data.google_storage_project_service_account.this, data.google_bigquery_default_service_account.this]
}
