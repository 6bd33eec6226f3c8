# The buckets by a key. `bucket` is short for a map with the one key `dicom`, which leaves no trace in the
# names of triggers, topics and subscriptions: others can be added, and nothing of the first is replaced.
locals {
  buckets = merge(var.buckets, { for key in length(var.buckets) == 0 ? ["dicom"] : [] : key => merge(var.bucket, {
    via               = "eventarc"
    prefix            = null
    managed_elsewhere = false
    project_number    = null
    topic             = null
    subscription      = null
  }) })

  # What names end in.
  key_suffixes = { for key in keys(local.buckets) : key => key == "dicom" ? "" : "-${key}" }
}

resource "google_storage_bucket" "dicom" {
  #checkov:skip=CKV_GCP_62: Cloud Audit Logs record who read an object; they are switched on for the project
  #checkov:skip=CKV_GCP_78: the owner decides whether deleted objects are kept: bucket.versioning
  for_each = { for key, bucket in local.buckets : key => bucket if !bucket.existing }

  project                     = var.project_id
  name                        = coalesce(each.value.name, join("-", compact([replace(var.project_id, "/[.:]/", "-"), each.key, var.suffix])))
  location                    = coalesce(each.value.location, var.region)
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  versioning {
    enabled = each.value.versioning
  }

  dynamic "encryption" {
    for_each = local.kms_key

    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.this, time_sleep.keys]
}

# Whoever applies may have no right to see a bucket that is managed elsewhere.
data "google_storage_bucket" "existing" {
  for_each = { for key, bucket in local.buckets : key => bucket if bucket.existing && !bucket.managed_elsewhere }

  name = each.value.name
}

locals {
  bucket_names = merge(
    { for key, bucket in google_storage_bucket.dicom : key => bucket.name },
    { for key, bucket in data.google_storage_bucket.existing : key => bucket.name },
    { for key, bucket in local.buckets : key => bucket.name if bucket.managed_elsewhere },
  )
  bucket_locations = {
    for key, bucket in merge(google_storage_bucket.dicom, data.google_storage_bucket.existing) : key => lower(bucket.location)
  }
  bucket_paths = { for key, name in local.bucket_names : key => "gs://${name}${local.buckets[key].prefix == null ? "" : "/${local.buckets[key].prefix}"}" }

  # For descriptions and titles.
  all_buckets = length(local.buckets) == 1 ? one(values(local.bucket_paths)) : "${length(local.buckets)} buckets"

  # Existing buckets can be of another project, and fail the conditions on these: see function.tf.
  bucket_projects = merge(
    { for key, bucket in data.google_storage_bucket.existing : key => tostring(bucket.project_number) },
    { for key, bucket in local.buckets : key => bucket.project_number if bucket.managed_elsewhere },
  )
  other_projects = { for key, number in local.bucket_projects : key => number if number != tostring(data.google_project.this.number) }
  can_rename = [
    for key, bucket in data.google_storage_bucket.existing : bucket.name
    if anytrue(bucket.hierarchical_namespace[*].enabled) && !local.buckets[key].folders_are_never_renamed
  ]

  # The buckets made here. The keys are known before the buckets are.
  new_buckets = merge(
    { source = google_storage_bucket.source.name },
    { for key, bucket in google_storage_bucket.dicom : key => bucket.name },
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
