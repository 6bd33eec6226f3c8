# Who may do what. Each grant is an entry of one of these maps: from them come the resources that make
# the grants and, for a team that makes them itself, the output `grants`. The tests hold the whole list.
locals {
  inserter = ["bigquery.datasets.get", "bigquery.tables.get", "bigquery.tables.updateData"]
  loader   = concat(local.inserter, ["bigquery.tables.getData"])

  project_grants = merge(
    length(local.triggers) == 0 ? {} : {
      # Eventarc requires this role on the project.
      trigger = { role = "roles/eventarc.eventReceiver", member = local.members.trigger, condition = null }

      # Cloud Storage sends the events to topics that Eventarc makes and names.
      storage_agent = { role = "roles/pubsub.publisher", member = local.members.storage, condition = null }
    },
    {
      # Google keeps images and logs of builds in repositories and buckets of its own making, so these
      # need the project. roles/cloudbuild.builds.builder would also let it write to every bucket.
      build_image = { role = "roles/artifactregistry.writer", member = local.members.build, condition = null }
      build_log   = { role = "roles/logging.logWriter", member = local.members.build, condition = null }

      # The build reads its source and nothing else: the bucket that the archive is uploaded to, and
      # the one that Cloud Functions copies it to, which may not exist before the first build.
      build_source = { role = "roles/storage.objectViewer", member = local.members.build, condition = local.build_condition }

      # Google grants these itself, but in a new project too late for the first apply.
      eventarc_agent = { role = "roles/eventarc.serviceAgent", member = local.members.eventarc, condition = null }
      pubsub_agent   = { role = "roles/pubsub.serviceAgent", member = local.members.pubsub, condition = null }
    },
    # Dataflow's control of its workers, and load jobs, are granted on the project only.
    var.backfill.enabled ? {
      backfill_load = { role = "roles/bigquery.jobUser", member = local.members.backfill, condition = null }
      backfill_work = { role = "roles/dataflow.worker", member = local.members.backfill, condition = null }
    } : {},
    # The agent gets tokens of the identity by its role. As with the others, Google's own grant can be late.
    var.refresh.enabled ? {
      refresh_run   = { role = "roles/bigquery.jobUser", member = local.members.refresh, condition = null }
      refresh_agent = { role = "roles/bigquerydatatransfer.serviceAgent", member = local.members.bigquerydatatransfer, condition = null }
    } : {},
  )

  build_condition = join(" || ", flatten([
    for bucket in local.build_buckets : [
      "resource.name == \"projects/_/buckets/${bucket}\"",
      "resource.name.startsWith(\"projects/_/buckets/${bucket}/\")",
    ]
  ]))

  bucket_grants = merge(
    { for key, name in local.bucket_names : "runtime/${key}" => { bucket = name, role = "roles/storage.objectViewer", member = local.members.runtime } },
    { for key, name in local.bucket_names : "backfill/${key}" => { bucket = name, role = "roles/storage.objectViewer", member = local.members.backfill } if var.backfill.enabled },
    var.backfill.enabled ? {
      backfill_staging = { bucket = google_storage_bucket.staging[0].name, role = "roles/storage.objectUser", member = local.members.backfill }
    } : {},
  )

  # Whoever manages these buckets makes the grants on them.
  managed_elsewhere = [for key, bucket in local.buckets : key if bucket.managed_elsewhere]

  # The agent of the bucket's project, which may be another, publishes its notifications. That of a topic
  # that was there before has its grant.
  topic_grants = { for key in keys(local.new_topics) : key => {
    role   = "roles/pubsub.publisher"
    member = contains(keys(local.other_projects), key) ? "serviceAccount:service-${local.bucket_projects[key]}@gs-project-accounts.iam.gserviceaccount.com" : local.members.storage
  } }

  # Data editor could read every row and drop the tables; the custom roles hold what insertAll and load
  # jobs need.
  dataset_grants = merge(
    { runtime = { role = local.custom_roles.inserter, member = local.members.runtime } },
    var.backfill.enabled ? { backfill = { role = local.custom_roles.loader, member = local.members.backfill } } : {},
    # Names and columns, no rows: BigQuery looks the dataset up before a run.
    var.refresh.enabled ? { refresh = { role = "roles/bigquery.metadataViewer", member = local.members.refresh } } : {},
    { for reader in var.dataset.readers : "reader/${reader}" => { role = "roles/bigquery.dataViewer", member = reader } },
  )

  custom_roles = {
    inserter = try(google_project_iam_custom_role.inserter[0].id, "a custom role of ${join(", ", local.inserter)}")
    loader   = try(google_project_iam_custom_role.loader[0].id, "a custom role of ${join(", ", local.loader)}")
  }

  # The refresh reads one table, and changes the other.
  refresh_grants = { for name, role in var.refresh.enabled ? { instances = "roles/bigquery.dataViewer", objects = "roles/bigquery.dataEditor" } : {} :
    name => { table = google_bigquery_table.table[name].table_id, role = role, member = local.members.refresh }
  }

  # Pub/Sub moves what cannot be delivered out of a subscription, to the topic, and from there into the
  # table.
  dead_letter_grants = {
    table = { role = "roles/bigquery.dataEditor", member = local.members.pubsub }
    topic = { role = "roles/pubsub.publisher", member = local.members.pubsub }
  }
  subscription_grant = { role = "roles/pubsub.subscriber", member = local.members.pubsub }

  # The function gets the key in its environment; the workers of a backfill read it themselves.
  secret_grants = {
    for reader in concat(["runtime"], var.backfill.enabled ? ["backfill"] : []) : reader => {
      secret = var.privacy.hash_key.secret, role = "roles/secretmanager.secretAccessor", member = local.members[reader]
    } if var.privacy.hash_key != null
  }

  # Of all services, triggers and pushes may call the function's only.
  service_grant = { role = "roles/run.invoker", member = local.members.trigger }

  # Each agent encrypts what it stores: rows, messages, objects, images, the function and its events.
  key_grants = { for agent in var.kms_key == null ? [] : ["artifactregistry", "bigquery", "cloudfunctions", "eventarc", "pubsub", "run", "storage"] :
    agent => { role = "roles/cloudkms.cryptoKeyEncrypterDecrypter", member = local.members[agent] }
  }

  # The same in one list, to be read by people.
  grants = concat(
    [for grant in local.project_grants : merge(grant, { on = "project ${var.project_id}" })],
    [for grant in local.bucket_grants : { on = "bucket ${grant.bucket}", role = grant.role, member = grant.member, condition = null }],
    [for key, grant in local.topic_grants : merge(grant, { on = "topic ${local.new_topics[key]}", condition = null })],
    [for grant in local.dataset_grants : merge(grant, { on = "dataset ${var.project_id}.${local.dataset_id}", condition = null })],
    [for grant in local.refresh_grants : { on = "table ${var.project_id}.${local.dataset_id}.${grant.table}", role = grant.role, member = grant.member, condition = null }],
    [merge(local.dead_letter_grants.table, { on = "table ${var.project_id}.${local.undelivered.dataset_id}.${local.undelivered.table_id}", condition = null })],
    [merge(local.dead_letter_grants.topic, { on = "topic ${google_pubsub_topic.dead_letter.name}", condition = null })],
    [for grant in local.secret_grants : { on = "secret ${grant.secret}", role = grant.role, member = grant.member, condition = null }],
    [for grant in local.key_grants : merge(grant, { on = "key ${var.kms_key}", condition = null })],
    [merge(local.service_grant, { on = "Cloud Run service ${local.name}", condition = null })],
    [for trigger in local.triggers : merge(local.subscription_grant, { on = "subscription of the trigger ${trigger.name}", condition = null })],
    [for subscription in google_pubsub_subscription.objects : merge(local.subscription_grant, { on = "subscription ${subscription.name}", condition = null })],
  )
}

resource "google_project_iam_custom_role" "inserter" {
  count = var.grants ? 1 : 0

  project     = var.project_id
  role_id     = "${local.snake_name}_inserter"
  title       = "${local.name}: insert rows"
  description = "Insert rows into the tables of a dataset, without reading any."
  permissions = local.inserter
  depends_on  = [google_project_service.this]
}

resource "google_project_iam_custom_role" "loader" {
  count = var.grants && var.backfill.enabled ? 1 : 0

  project     = var.project_id
  role_id     = "${local.snake_name}_loader"
  title       = "${local.name}: load rows"
  description = "Load rows into the tables of a dataset, and read what is there."
  permissions = local.loader
  depends_on  = [google_project_service.this]
}

resource "google_project_iam_member" "this" {
  for_each = { for name, grant in local.project_grants : name => grant if var.grants }

  project = var.project_id
  role    = each.value.role
  member  = each.value.member

  dynamic "condition" {
    for_each = each.value.condition[*]

    content {
      title       = "the function's source"
      description = "Nothing but ${join(" and ", local.build_buckets)}"
      expression  = condition.value
    }
  }

  depends_on = [time_sleep.identities]
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = { for name, grant in local.bucket_grants : name => grant if var.grants && !contains(local.managed_elsewhere, basename(name)) }

  bucket     = each.value.bucket
  role       = each.value.role
  member     = each.value.member
  depends_on = [time_sleep.identities]
}

resource "google_bigquery_dataset_iam_member" "this" {
  for_each = { for name, grant in local.dataset_grants : name => grant if var.grants }

  project    = var.project_id
  dataset_id = local.dataset_id
  role       = each.value.role
  member     = each.value.member
  depends_on = [time_sleep.identities]
}

resource "google_bigquery_table_iam_member" "refresh" {
  for_each = { for name, grant in local.refresh_grants : name => grant if var.grants }

  project    = var.project_id
  dataset_id = local.dataset_id
  table_id   = each.value.table
  role       = each.value.role
  member     = each.value.member
  depends_on = [time_sleep.identities]
}

resource "google_bigquery_table_iam_member" "dead_letter" {
  count = var.grants ? 1 : 0

  project    = var.project_id
  dataset_id = local.undelivered.dataset_id
  table_id   = local.undelivered.table_id
  role       = local.dead_letter_grants.table.role
  member     = local.dead_letter_grants.table.member
  depends_on = [time_sleep.identities]
}

resource "google_pubsub_topic_iam_member" "dead_letter" {
  count = var.grants ? 1 : 0

  project    = var.project_id
  topic      = google_pubsub_topic.dead_letter.name
  role       = local.dead_letter_grants.topic.role
  member     = local.dead_letter_grants.topic.member
  depends_on = [time_sleep.identities]
}

resource "google_pubsub_topic_iam_member" "objects" {
  for_each = { for key, grant in local.topic_grants : key => grant if var.grants }

  project    = var.project_id
  topic      = google_pubsub_topic.objects[each.key].name
  role       = each.value.role
  member     = each.value.member
  depends_on = [time_sleep.identities]
}

resource "google_secret_manager_secret_iam_member" "this" {
  for_each = { for name, grant in local.secret_grants : name => grant if var.grants }

  project    = var.project_id
  secret_id  = each.value.secret
  role       = each.value.role
  member     = each.value.member
  depends_on = [time_sleep.identities]
}

resource "google_kms_crypto_key_iam_member" "agents" {
  for_each = { for name, grant in local.key_grants : name => grant if var.kms_grants }

  crypto_key_id = var.kms_key
  role          = each.value.role
  member        = each.value.member
  depends_on    = [time_sleep.identities]
}

resource "google_cloud_run_v2_service_iam_member" "trigger" {
  count = var.grants ? 1 : 0

  project    = var.project_id
  location   = google_cloudfunctions2_function.ingest.location
  name       = basename(google_cloudfunctions2_function.ingest.service_config[0].service)
  role       = local.service_grant.role
  member     = local.service_grant.member
  depends_on = [time_sleep.identities]
}

resource "google_pubsub_subscription_iam_member" "dead_letter" {
  for_each = { for key in concat(keys(local.triggers), keys(local.notified)) : key => local.subscription_grant if var.grants }

  project      = var.project_id
  subscription = local.subscriptions[each.key]
  role         = each.value.role
  member       = each.value.member
  depends_on   = [time_sleep.identities]
}

# A grant takes a while to be in force everywhere.
resource "time_sleep" "keys" {
  create_duration = length(google_kms_crypto_key_iam_member.agents) == 0 ? "0s" : "60s"

  triggers = { for name, grant in google_kms_crypto_key_iam_member.agents : name => grant.id }
}

resource "time_sleep" "grants" {
  create_duration = var.grants ? "90s" : "0s"

  triggers = merge(
    { for name, grant in google_project_iam_member.this : "project/${name}" => grant.id },
    { for name, grant in google_storage_bucket_iam_member.this : "bucket/${name}" => grant.id },
    { for name, grant in google_bigquery_dataset_iam_member.this : "dataset/${name}" => grant.id if !startswith(name, "reader/") },
    { for name, grant in google_bigquery_table_iam_member.refresh : "table/${name}" => grant.id },
    { for grant in google_bigquery_table_iam_member.dead_letter[*] : "table/dead_letter" => grant.id },
    { for grant in google_pubsub_topic_iam_member.dead_letter[*] : "topic/dead_letter" => grant.id },
    { for key, grant in google_pubsub_topic_iam_member.objects : "topic/objects/${key}" => grant.id },
    { for name, grant in google_secret_manager_secret_iam_member.this : "secret/${name}" => grant.id },
  )
}
