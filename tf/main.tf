locals {
  name   = var.suffix == "" ? "dcm2bq" : "dcm2bq-${var.suffix}"
  labels = merge(var.labels, { application = local.name })

  # The same in the alphabet of datasets and roles.
  snake_name = replace(local.name, "-", "_")

  # The locations of buckets that Eventarc knows and that are no region, and a region within each for the
  # function. A configurable dual-region reports the multi-region that it lies in.
  region_within = {
    us    = "us-central1"
    eu    = "europe-west4"
    asia  = "asia-northeast1"
    nam4  = "us-central1"
    eur4  = "europe-west4"
    asia1 = "asia-northeast1"
  }
  region           = coalesce(var.region, lookup(local.region_within, local.bucket_location, local.bucket_location))
  dataset_location = coalesce(var.dataset.location, contains(["us", "eu"], local.bucket_location) ? upper(local.bucket_location) : local.region)
}

# Its number names the service agents and tells whose a bucket is. The id waits for the API.
data "google_project" "this" {
  project_id = split("/", google_project_service.this["cloudresourcemanager.googleapis.com"].id)[0]
}
