# With kms_key, everything that holds data, names or code is under that key. Buckets, dataset, topics and
# function refer to it where they are declared; here is what they need beside it.
locals {
  kms_key      = compact([var.kms_key])
  kms_location = try(split("/", var.kms_key)[3], null)
}

# Cloud Functions keeps the images of an encrypted function only in a repository under the same key.
resource "google_artifact_registry_repository" "images" {
  for_each = toset(local.kms_key)

  project       = var.project_id
  location      = var.region
  repository_id = local.name
  format        = "DOCKER"
  description   = "Images of the function ${local.name}"
  kms_key_name  = each.value
  labels        = local.labels

  depends_on = [google_project_service.this, time_sleep.keys]
}

# Object names pass through Eventarc. There is one configuration for each project and region: it holds
# for other triggers of the project too.
resource "google_eventarc_google_channel_config" "this" {
  for_each = toset(anytrue([for trigger in local.triggers : local.bucket_locations[trigger.bucket] == local.kms_location]) ? local.kms_key : [])

  project         = var.project_id
  location        = local.kms_location
  name            = "projects/${var.project_id}/locations/${local.kms_location}/googleChannelConfig"
  crypto_key_name = each.value

  depends_on = [google_project_service.this, time_sleep.keys]
}
