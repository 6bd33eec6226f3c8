resource "google_storage_bucket" "dicom" {
  #checkov:skip=CKV_GCP_62: Cloud Audit Logs record who read an object; they are switched on for the project
  #checkov:skip=CKV_GCP_78: the owner decides whether deleted objects are kept: bucket.versioning
  count = var.bucket.existing ? 0 : 1

  project                     = var.project_id
  name                        = coalesce(var.bucket.name, join("-", compact([replace(var.project_id, "/[.:]/", "-"), "dicom", var.suffix])))
  location                    = coalesce(var.bucket.location, var.region)
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  versioning {
    enabled = var.bucket.versioning
  }

  dynamic "encryption" {
    for_each = local.kms_key

    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.this, time_sleep.keys]
}

data "google_storage_bucket" "existing" {
  count = var.bucket.existing ? 1 : 0

  name = var.bucket.name
}

locals {
  bucket          = one(concat(google_storage_bucket.dicom[*].name, data.google_storage_bucket.existing[*].name))
  bucket_location = lower(one(concat(google_storage_bucket.dicom[*].location, data.google_storage_bucket.existing[*].location)))

  # Only an existing bucket can fail the conditions on these two: see function.tf.
  bucket_project = try(data.google_storage_bucket.existing[0].project_number, data.google_project.this.number)
  can_rename     = anytrue(flatten(data.google_storage_bucket.existing[*].hierarchical_namespace[*].enabled))

  # The buckets made here. The keys are known before the buckets are.
  new_buckets = merge(
    { source = google_storage_bucket.source.name },
    { for name in google_storage_bucket.dicom[*].name : "dicom" => name },
    { for name in google_storage_bucket.staging[*].name : "staging" => name },
  )
}

# Cloud Storage gives every viewer of the project these roles on a new bucket. A binding is the only
# resource that can take them away. It is made once: what others grant afterwards stays.
resource "google_storage_bucket_iam_binding" "owners_only" {
  for_each = {
    for pair in var.grants ? setproduct(keys(local.new_buckets), ["legacyBucketReader", "legacyObjectReader"]) : [] :
    join("/", pair) => { bucket = pair[0], role = pair[1] }
  }

  bucket  = local.new_buckets[each.value.bucket]
  role    = "roles/storage.${each.value.role}"
  members = ["projectOwner:${var.project_id}"]

  lifecycle {
    ignore_changes = [members]
  }
}
