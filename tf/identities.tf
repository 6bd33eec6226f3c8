# Who may do what. The tests hold the whole list: a role that is added fails them.

resource "google_service_account" "runtime" {
  project      = var.project_id
  account_id   = join("-", compact(["dcm2bq-run", var.suffix]))
  display_name = "${local.name}: what the function runs as"
  depends_on   = [google_project_service.this]
}

resource "google_service_account" "trigger" {
  project      = var.project_id
  account_id   = join("-", compact(["dcm2bq-trigger", var.suffix]))
  display_name = "${local.name}: what delivers events to the function"
  depends_on   = [google_project_service.this]
}

resource "google_service_account" "build" {
  project      = var.project_id
  account_id   = join("-", compact(["dcm2bq-build", var.suffix]))
  display_name = "${local.name}: what builds the function"
  depends_on   = [google_project_service.this]
}

# The function reads objects of the one bucket, and inserts into the one dataset. Data editor could
# read every row and drop the tables; these are what insertAll needs and no more.
resource "google_storage_bucket_iam_member" "runtime" {
  bucket = local.bucket
  role   = "roles/storage.objectViewer"
  member = google_service_account.runtime.member

  lifecycle {
    precondition {
      condition     = tostring(local.bucket_project) == tostring(data.google_project.this.number)
      error_message = "The bucket ${local.bucket} is in another project: Eventarc delivers the events of buckets in its own project alone."
    }
    precondition {
      condition     = var.bucket.folders_are_never_renamed || !local.can_rename
      error_message = "The bucket ${local.bucket} has a hierarchical namespace: its folders can be renamed without an event for the objects in them. Set bucket.folders_are_never_renamed if nobody ever does."
    }
  }
}

resource "google_project_iam_custom_role" "inserter" {
  project     = var.project_id
  role_id     = "${local.snake_name}_inserter"
  title       = "${local.name}: insert rows"
  description = "Insert rows into the tables of a dataset, without reading any."
  permissions = [
    "bigquery.datasets.get",
    "bigquery.tables.get",
    "bigquery.tables.updateData",
  ]
  depends_on = [google_project_service.this]
}

resource "google_bigquery_dataset_iam_member" "runtime" {
  project    = var.project_id
  dataset_id = google_bigquery_dataset.dicom.dataset_id
  role       = google_project_iam_custom_role.inserter.id
  member     = google_service_account.runtime.member
}

resource "google_secret_manager_secret_iam_member" "runtime" {
  count = var.privacy.hash_key == null ? 0 : 1

  project    = var.project_id
  secret_id  = var.privacy.hash_key.secret
  role       = "roles/secretmanager.secretAccessor"
  member     = google_service_account.runtime.member
  depends_on = [google_project_service.this]
}

# Of all services the triggers may call the function's alone.
resource "google_cloud_run_v2_service_iam_member" "trigger" {
  project  = var.project_id
  location = google_cloudfunctions2_function.ingest.location
  name     = basename(google_cloudfunctions2_function.ingest.service_config[0].service)
  role     = "roles/run.invoker"
  member   = google_service_account.trigger.member
}

# Eventarc requires this one in the project: there is nothing smaller to grant it on.
resource "google_project_iam_member" "trigger" {
  project = var.project_id
  role    = "roles/eventarc.eventReceiver"
  member  = google_service_account.trigger.member
}

# Google keeps the images and logs of builds in repositories and buckets of its own making, so that
# only the project will do. These are fewer than roles/cloudbuild.builds.builder holds, which could
# write objects into every bucket.
resource "google_project_iam_member" "build" {
  for_each = toset(["roles/artifactregistry.writer", "roles/logging.logWriter"])

  project = var.project_id
  role    = each.key
  member  = google_service_account.build.member
}

# The build reads its source and nothing else: the bucket that the archive is uploaded to, and the one
# that Cloud Functions copies it into, whose name is Google's (gcf-v2-sources-PROJECT_NUMBER-REGION)
# and which may not be there before the first build. A condition admits these two by name; whatever
# bucket there is besides, or comes later, stays closed.
resource "google_project_iam_member" "build_source" {
  project = var.project_id
  role    = "roles/storage.objectViewer"
  member  = google_service_account.build.member

  condition {
    title       = "the function's source"
    description = "Nothing but ${join(" and ", local.build_buckets)}"
    expression = join(" || ", flatten([
      for bucket in local.build_buckets : [
        "resource.name == \"projects/_/buckets/${bucket}\"",
        "resource.name.startsWith(\"projects/_/buckets/${bucket}/\")",
      ]
    ]))
  }
}

# Agents of Google's own. In an empty project they are not there before their first use, and the role
# that each holds everywhere is not granted by creating them.
resource "google_project_service_identity" "agent" {
  provider = google-beta
  for_each = toset(["eventarc", "pubsub"])

  project    = var.project_id
  service    = "${each.key}.googleapis.com"
  depends_on = [google_project_service.this]
}

resource "google_project_iam_member" "agent" {
  for_each = google_project_service_identity.agent

  project = var.project_id
  role    = "roles/${each.key}.serviceAgent"
  member  = each.value.member
}

# Looking it up creates it. The id waits for the API.
data "google_storage_project_service_account" "this" {
  project = split("/", google_project_service.this["storage.googleapis.com"].id)[0]
}

# Cloud Storage sends the events. The topics are Eventarc's and named by it: only the project will do.
resource "google_project_iam_member" "storage_agent" {
  project = var.project_id
  role    = "roles/pubsub.publisher"
  member  = data.google_storage_project_service_account.this.member
}

# Pub/Sub moves what cannot be delivered to the topic, and from there into the table. (That it may
# take it out of each subscription is granted with the subscription: triggers.tf.)
resource "google_pubsub_topic_iam_member" "dead_letter" {
  project = var.project_id
  topic   = google_pubsub_topic.dead_letter.name
  role    = "roles/pubsub.publisher"
  member  = google_project_service_identity.agent["pubsub"].member
}

resource "google_bigquery_table_iam_member" "dead_letter" {
  project    = var.project_id
  dataset_id = google_bigquery_dataset.dicom.dataset_id
  table_id   = google_bigquery_table.table["dead_letter"].table_id
  role       = "roles/bigquery.dataEditor"
  member     = google_project_service_identity.agent["pubsub"].member
}

data "google_bigquery_default_service_account" "this" {
  count = length(local.kms_key)

  project = split("/", google_project_service.this["bigquery.googleapis.com"].id)[0]
}

resource "google_kms_crypto_key_iam_member" "agents" {
  for_each = var.kms_key == null ? {} : {
    bigquery = data.google_bigquery_default_service_account.this[0].member
    pubsub   = google_project_service_identity.agent["pubsub"].member
    storage  = data.google_storage_project_service_account.this.member
  }

  crypto_key_id = var.kms_key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = each.value
}

# What was granted takes a while to be true everywhere.
resource "time_sleep" "grants" {
  create_duration = "90s"

  triggers = {
    build         = join(",", [for grant in google_project_iam_member.build : grant.id])
    build_source  = google_project_iam_member.build_source.id
    trigger       = google_project_iam_member.trigger.id
    storage_agent = google_project_iam_member.storage_agent.id
    agents        = join(",", [for grant in google_project_iam_member.agent : grant.id])
    bucket        = google_storage_bucket_iam_member.runtime.id
    dataset       = google_bigquery_dataset_iam_member.runtime.id
    dead_letter   = google_bigquery_table_iam_member.dead_letter.id
    topic         = google_pubsub_topic_iam_member.dead_letter.id
    secret        = join(",", google_secret_manager_secret_iam_member.runtime[*].id)
  }
}

locals {
  kms_key = compact([var.kms_key])
}
