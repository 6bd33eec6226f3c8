variable "project_id" {
  description = "Project of everything, including the buckets, unless they are existing ones of other projects."
  type        = string

  validation {
    condition     = can(regex("^([a-z][a-z0-9.-]*[a-z0-9]:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id must be the id of a project, such as my-project-123: not its name, not its number."
  }
}

variable "region" {
  description = "Region of the function and, unless `bucket.location` or `dataset.location` says otherwise, of bucket and dataset. For an existing bucket in a multi-region, a region within it."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region must be a region, such as europe-west4: not a zone, not a multi-region."
  }
}

variable "suffix" {
  description = "Distinguishes several deployments in one project: the name of everything that is created ends in it."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?)?$", var.suffix))
    error_message = "suffix must be at most 10 lower case letters, digits and hyphens, and begin and end with a letter or digit."
  }
}

variable "labels" {
  description = "Labels of everything that can have labels, in addition to `application`."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key, value in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))])
    error_message = "labels must consist of lower case letters, digits, hyphens and underscores, at most 63 of them; a key begins with a letter."
  }
}

variable "bucket" {
  description = "The bucket of the DICOM objects: a new one, or an existing one with `existing` and its `name`. By default a new bucket `PROJECT-dicom[-SUFFIX]` in `region`. `folders_are_never_renamed` admits a bucket with hierarchical namespace. For several buckets, use `buckets`."
  type = object({
    name                      = optional(string)
    existing                  = optional(bool, false)
    location                  = optional(string)
    versioning                = optional(bool, false)
    folders_are_never_renamed = optional(bool, false)
  })
  default = {}

  validation {
    condition     = !var.bucket.existing || var.bucket.name != null
    error_message = "bucket.name must name the bucket when bucket.existing is true."
  }
  validation {
    condition     = var.bucket.name == null || can(regex("^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$", var.bucket.name))
    error_message = "bucket.name must be the name of a bucket: no gs://, no path, no capital letters."
  }
}

variable "buckets" {
  description = "Several buckets, instead of `bucket`, each by a short key that names what is created for it; `name` is by default `PROJECT-KEY[-SUFFIX]`. The key `dicom` stands for the bucket that the variable `bucket` had. Events come `via` `eventarc` or, for buckets of other projects and for those whose names begin with `prefix`, `pubsub`. Existing `topic` (`projects/P/topics/T`) and `subscription` (its name, once imported) can be taken over. Nothing is read or changed on a bucket that is `managed_elsewhere`: its owners make the grants and the notification that the outputs `grants` and `notifications` list; `project_number` is that of its project."
  type = map(object({
    name                      = optional(string)
    via                       = optional(string, "eventarc")
    prefix                    = optional(string)
    existing                  = optional(bool, false)
    location                  = optional(string)
    versioning                = optional(bool, false)
    folders_are_never_renamed = optional(bool, false)
    topic                     = optional(string)
    subscription              = optional(string)
    managed_elsewhere         = optional(bool, false)
    project_number            = optional(string)
  }))
  default  = {}
  nullable = false

  validation {
    condition     = length(var.buckets) == 0 || (var.bucket.name == null && !var.bucket.existing && var.bucket.location == null && !var.bucket.versioning && !var.bucket.folders_are_never_renamed)
    error_message = "buckets and bucket exclude each other: move bucket into buckets, under the key dicom."
  }
  validation {
    condition     = alltrue([for key in keys(var.buckets) : can(regex("^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$", key)) && !contains(["source", "staging"], key) && !startswith(key, "dcm2bq")])
    error_message = "A key of buckets must be at most 20 lower case letters, digits and hyphens, and begin with a letter: neither source nor staging nor dcm2bq, which this folder uses itself."
  }
  validation {
    condition     = alltrue([for bucket in values(var.buckets) : bucket.name == null ? !bucket.existing : can(regex("^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$", bucket.name))])
    error_message = "buckets must give each existing bucket its name, as it is: no gs://, no path, no capital letters."
  }
  validation {
    condition     = length(distinct([for bucket in values(var.buckets) : bucket.name if bucket.name != null])) == length([for bucket in values(var.buckets) : bucket.name if bucket.name != null])
    error_message = "buckets names a bucket twice: each of its events would be delivered twice."
  }
  validation {
    condition     = alltrue([for bucket in values(var.buckets) : contains(["eventarc", "pubsub"], bucket.via)])
    error_message = "via must be eventarc or pubsub."
  }
  validation {
    condition     = alltrue([for bucket in values(var.buckets) : bucket.via == "pubsub" if bucket.prefix != null])
    error_message = "prefix takes via = \"pubsub\": Eventarc cannot filter the events of a bucket by the objects' names."
  }
  validation {
    condition     = alltrue([for bucket in values(var.buckets) : bucket.prefix != "" && !can(regex("^/|^gs://|'", bucket.prefix)) if bucket.prefix != null])
    error_message = "prefix must be the beginning of object names, such as ct/2026/: no leading slash, no bucket, no quote."
  }
  validation {
    condition     = alltrue([for bucket in values(var.buckets) : bucket.via == "pubsub" if bucket.topic != null || bucket.subscription != null])
    error_message = "topic and subscription take via = \"pubsub\"."
  }
  validation {
    condition     = alltrue([for bucket in values(var.buckets) : can(regex("^projects/[^/]+/topics/[^/]+$", bucket.topic)) if bucket.topic != null])
    error_message = "topic must be the full name of an existing topic: projects/P/topics/T."
  }
  validation {
    condition     = alltrue([for bucket in values(var.buckets) : can(regex("^[A-Za-z][A-Za-z0-9._~+%-]{2,254}$", bucket.subscription)) if bucket.subscription != null])
    error_message = "subscription must be the name of a subscription in this project: no projects/, no subscriptions/."
  }
  validation {
    condition     = alltrue([for bucket in values(var.buckets) : bucket.existing && bucket.via == "pubsub" && can(regex("^[0-9]+$", bucket.project_number)) if bucket.managed_elsewhere])
    error_message = "managed_elsewhere takes existing = true, via = \"pubsub\" and the project_number of the bucket's project, whose Cloud Storage agent publishes the notifications."
  }
  validation {
    condition     = alltrue([for bucket in values(var.buckets) : bucket.managed_elsewhere if bucket.project_number != null])
    error_message = "project_number is for a bucket that is managed_elsewhere: that of another bucket is read."
  }
}

variable "dataset" {
  description = "The BigQuery dataset and its tables. By default `dicom[_SUFFIX]`, in the location of the bucket `dicom` if BigQuery has it, otherwise in `region`. With `existing`, this deployment writes to the dataset `id` of another one in the project, which owns it and sets everything else but `readers`. `readers` may query everything in it; `policy_tags` protects columns of the table `instances`, by name. `time_travel_hours` (48 to 168) and `storage_billing` (`LOGICAL` or `PHYSICAL`) are those of BigQuery. Without `deletion_protection`, `terraform destroy` drops the tables with their rows."
  type = object({
    id                   = optional(string)
    existing             = optional(bool, false)
    location             = optional(string)
    instances_table_id   = optional(string, "instances")
    dead_letter_table_id = optional(string, "dead_letter")
    readers              = optional(list(string), [])
    policy_tags          = optional(map(string), {})
    time_travel_hours    = optional(number)
    storage_billing      = optional(string)
    deletion_protection  = optional(bool, true)
  })
  default = {}

  validation {
    condition     = var.dataset.id == null || can(regex("^[A-Za-z0-9_]+$", var.dataset.id))
    error_message = "dataset.id must consist of letters, digits and underscores."
  }
  validation {
    condition     = !var.dataset.existing || var.dataset.id != null
    error_message = "dataset.id must name the dataset when dataset.existing is true."
  }
  validation {
    condition     = !var.dataset.existing || (var.dataset.location == null && length(var.dataset.policy_tags) == 0 && var.dataset.time_travel_hours == null && var.dataset.storage_billing == null)
    error_message = "dataset.existing excludes location, policy_tags, time_travel_hours and storage_billing: the deployment that owns the dataset sets them."
  }
  validation {
    condition     = alltrue([for id in [var.dataset.instances_table_id, var.dataset.dead_letter_table_id] : can(regex("^[A-Za-z0-9_]+$", id))])
    error_message = "dataset.instances_table_id and dataset.dead_letter_table_id must consist of letters, digits and underscores."
  }
  validation {
    condition = length(distinct([for id in concat(
      [var.dataset.instances_table_id, var.dataset.dead_letter_table_id],
      local.view_names,
    ) : lower(id)])) == 2 + length(local.view_names)
    error_message = "dataset.instances_table_id and dataset.dead_letter_table_id must differ from each other and from the views: ${join(", ", local.view_names)}."
  }
  validation {
    condition     = alltrue([for reader in var.dataset.readers : can(regex("^(user|group|serviceAccount|domain):[^ ]+$|^principal(Set)?://[^ ]+$", reader))])
    error_message = "dataset.readers must be principals, such as group:radiology-research@example.org: neither allUsers nor a bare address."
  }
  validation {
    condition     = alltrue([for tag in values(var.dataset.policy_tags) : can(regex("^projects/[^/]+/locations/[^/]+/taxonomies/[0-9]+/policyTags/[0-9]+$", tag))])
    error_message = "dataset.policy_tags must give each column a policy tag by its full name: projects/P/locations/L/taxonomies/1/policyTags/2."
  }
  validation {
    condition     = var.dataset.time_travel_hours == null || try(contains([48, 72, 96, 120, 144, 168], var.dataset.time_travel_hours), false)
    error_message = "dataset.time_travel_hours must be whole days in hours, from 48 to 168, or be left out."
  }
  validation {
    condition     = var.dataset.storage_billing == null || try(contains(["LOGICAL", "PHYSICAL"], var.dataset.storage_billing), false)
    error_message = "dataset.storage_billing must be LOGICAL or PHYSICAL, or be left out."
  }
}

variable "function" {
  description = "Size and limits of the function. `concurrency` events share one instance; `timeout_seconds` must be at least 10 more than `limits.deadlineSeconds`, which a dead letter may take, and below the acknowledgement deadline of 600."
  type = object({
    memory          = optional(string, "512Mi")
    cpu             = optional(string, "1")
    concurrency     = optional(number, 8)
    min_instances   = optional(number, 0)
    max_instances   = optional(number, 20)
    timeout_seconds = optional(number, 120)
  })
  default = {}

  validation {
    condition     = can(regex("^[1-9][0-9]*(Mi|Gi)$", var.function.memory))
    error_message = "function.memory must be a size in Mi or Gi, such as 512Mi."
  }
  validation {
    condition     = var.function.concurrency >= 1 && var.function.concurrency <= 1000 && floor(var.function.concurrency) == var.function.concurrency
    error_message = "function.concurrency must be a whole number from 1 to 1000."
  }
  validation {
    condition     = can(tonumber(var.function.cpu)) && (try(tonumber(var.function.cpu), 0) >= 1 || var.function.concurrency == 1)
    error_message = "function.cpu must be at least 1 when function.concurrency is more than 1."
  }
  validation {
    condition     = var.function.min_instances >= 0 && var.function.max_instances >= max(1, var.function.min_instances)
    error_message = "function.max_instances must be at least 1 and at least function.min_instances."
  }
  validation {
    condition     = var.function.timeout_seconds >= try(tonumber(var.config.limits.deadlineSeconds), 50) + 10
    error_message = "function.timeout_seconds must be at least 10 more than config.limits.deadlineSeconds (50 by default): a dead letter may take that long."
  }
  validation {
    condition     = var.function.timeout_seconds < 600
    error_message = "function.timeout_seconds must be below 600, the acknowledgement deadline of the subscriptions."
  }
}

variable "reindex_on_metadata_update" {
  description = "Index an object again when its metadata changes: adds a trigger on `metadataUpdated`, and sets `events.reindexOnMetadataUpdate`."
  type        = bool
  default     = false
}

variable "privacy" {
  description = "The `privacy` options of the function. `hash_key` names a secret in Secret Manager, in this project, that holds the key of the hash, and its version; the version is part of the fingerprint in the table's label. With `path` set to `hash`, tables have hashes instead of names of objects; what Pub/Sub gives up on has names, and goes to a dataset of its own, which `dataset.readers` cannot read."
  type = object({
    profile          = optional(string)
    options          = optional(set(string), [])
    shift_days       = optional(number, 365)
    kept_descriptors = optional(set(string), [])
    remove           = optional(list(string), [])
    hash             = optional(list(string), [])
    path             = optional(string, "full")
    hash_key = optional(object({
      secret  = string
      version = string
    }))
  })
  default = {}

  validation {
    condition     = var.privacy.profile == null || try(var.privacy.profile == "basic", false)
    error_message = "privacy.profile must be basic, or be left out."
  }
  validation {
    condition = length(setsubtract(var.privacy.options, [
      "retainLongitudinalModifiedDates", "retainLongitudinalFullDates", "retainDeviceIdentity",
      "retainInstitutionIdentity", "retainPatientCharacteristics", "retainUids", "retainSafePrivate",
      "cleanStructuredContent", "cleanDescriptors",
    ])) == 0
    error_message = "privacy.options must list options of the profile: retainLongitudinalModifiedDates, retainLongitudinalFullDates, retainDeviceIdentity, retainInstitutionIdentity, retainPatientCharacteristics, retainUids, retainSafePrivate, cleanStructuredContent, cleanDescriptors."
  }
  validation {
    condition     = length(var.privacy.options) == 0 || var.privacy.profile != null
    error_message = "privacy.options need privacy.profile: set it to basic."
  }
  validation {
    condition     = length(setsubtract(["retainLongitudinalModifiedDates", "retainLongitudinalFullDates"], var.privacy.options)) > 0
    error_message = "privacy.options must not list both retainLongitudinalModifiedDates and retainLongitudinalFullDates."
  }
  validation {
    condition     = var.privacy.shift_days >= 1 && var.privacy.shift_days <= 3650 && floor(var.privacy.shift_days) == var.privacy.shift_days
    error_message = "privacy.shift_days must be an integer from 1 to 3650."
  }
  validation {
    condition     = contains(var.privacy.options, "cleanDescriptors") == (length(var.privacy.kept_descriptors) > 0)
    error_message = "privacy.kept_descriptors must list values or keywords if privacy.options lists cleanDescriptors, and be left out otherwise."
  }
  validation {
    condition     = alltrue([for text in var.privacy.kept_descriptors : trimspace(text) != "" && length(text) <= 1024])
    error_message = "privacy.kept_descriptors must list texts of 1 to 1,024 characters that are not blank."
  }
  validation {
    condition     = alltrue([for name in concat(var.privacy.remove, var.privacy.hash) : can(regex("^[A-Za-z0-9]+$", name))])
    error_message = "privacy.remove and privacy.hash must list keywords (PatientName), tags (00100010, 60xx3000) or private: only letters and digits."
  }
  validation {
    condition     = var.privacy.hash_key == null || can(regex("^[1-9][0-9]*$", var.privacy.hash_key.version))
    error_message = "privacy.hash_key.version must be the number of a version: with latest, pseudonyms would change unnoticed."
  }
  validation {
    condition     = var.privacy.hash_key == null || can(regex("^[A-Za-z0-9_-]{1,255}$", var.privacy.hash_key.secret))
    error_message = "privacy.hash_key.secret must be the id of a secret: no projects/, no versions/."
  }
  validation {
    condition     = (length(var.privacy.hash) == 0 && var.privacy.profile == null && var.privacy.path != "hash") || var.privacy.hash_key != null
    error_message = "privacy.hash_key must be given with privacy.hash, with privacy.profile and with privacy.path = hash: all of them hash."
  }
  validation {
    condition     = contains(["full", "hash"], var.privacy.path)
    error_message = "privacy.path must be full or hash."
  }
}

variable "config" {
  description = "Further options of the function, as listed in README: `{ jsonOutput = { ignorePrivate = true } }`. Options that other variables set are refused here."
  type        = any
  default     = {}

  validation {
    condition     = can(keys(var.config)) && alltrue([for group in try(values(var.config), []) : can(keys(group))])
    error_message = "config must be an object of groups of options, such as { jsonOutput = { ignorePrivate = true } }."
  }
  validation {
    condition     = !can(var.config.privacy)
    error_message = "config.privacy must be left out: use the variable privacy."
  }
  validation {
    condition     = length(setintersection(try(keys(var.config.bigQuery), []), ["projectId", "datasetId", "instancesTableId", "deadLetterTableId"])) == 0
    error_message = "config.bigQuery must not name project, dataset or tables: use the variables project_id and dataset."
  }
  validation {
    condition     = !can(var.config.input.buckets)
    error_message = "config.input.buckets must be left out: use the variable bucket or buckets."
  }
  validation {
    condition     = !can(var.config.events.reindexOnMetadataUpdate)
    error_message = "config.events.reindexOnMetadataUpdate must be left out: use the variable reindex_on_metadata_update."
  }
  validation {
    condition     = try(tonumber(var.config.bigQuery.timeoutSeconds), 30) <= try(tonumber(var.config.limits.deadlineSeconds), 50)
    error_message = "config.bigQuery.timeoutSeconds (30 by default) must not exceed config.limits.deadlineSeconds (50 by default)."
  }
  validation {
    condition     = try(tonumber(var.config.retry.maxAgeSeconds), 43200) <= 56400
    error_message = "config.retry.maxAgeSeconds must be at most 56400: 100 attempts last about 15.7 hours, and the function has to give up first."
  }
}

variable "alerts" {
  description = "Whom to notify, and when. `emails` become notification channels; `notification_channels` are the ids of existing ones. `dead_letters` in a day, or failed deliveries of more than `failed_ratio` and more than `failed_deliveries` in 10 minutes, raise an alert. `silence_hours` (1 to 24) raises one when no event was handled for that long: only for buckets that are never idle."
  type = object({
    emails                 = optional(list(string), [])
    notification_channels  = optional(list(string), [])
    dead_letters           = optional(number, 10)
    failed_ratio           = optional(number, 0.05)
    failed_deliveries      = optional(number, 20)
    oldest_unacked_minutes = optional(number, 60)
    silence_hours          = optional(number)
  })
  default = {}

  validation {
    condition     = alltrue([for email in var.alerts.emails : can(regex("^[^@ ]+@[^@ ]+$", email))])
    error_message = "alerts.emails must be e-mail addresses."
  }
  validation {
    condition     = alltrue([for id in var.alerts.notification_channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", id))])
    error_message = "alerts.notification_channels must be ids such as projects/my-project/notificationChannels/123."
  }
  validation {
    condition     = alltrue([for number in [var.alerts.dead_letters, var.alerts.failed_deliveries] : number >= 0 && floor(number) == number])
    error_message = "alerts.dead_letters and alerts.failed_deliveries must be whole numbers; 0 raises an alert at the first."
  }
  validation {
    condition     = var.alerts.failed_ratio > 0 && var.alerts.failed_ratio <= 1
    error_message = "alerts.failed_ratio must be above 0 and at most 1: 0.05 is 5 % of the deliveries."
  }
  validation {
    condition     = var.alerts.oldest_unacked_minutes >= 15
    error_message = "alerts.oldest_unacked_minutes must be at least 15: a single retry may wait for 10 minutes."
  }
  validation {
    condition     = var.alerts.silence_hours == null || try(var.alerts.silence_hours >= 1 && var.alerts.silence_hours <= 24, false)
    error_message = "alerts.silence_hours must be from 1 to 24, or be left out."
  }
}

variable "budget" {
  description = "A monthly budget of the project, in the currency of the billing account, whose alerts go to the channels of `alerts` at each of `thresholds`. It warns and stops nothing."
  type = object({
    billing_account = string
    monthly_amount  = number
    thresholds      = optional(list(number), [0.5, 0.9, 1])
  })
  default = null

  validation {
    condition     = var.budget == null || can(regex("^[0-9A-F]{6}(-[0-9A-F]{6}){2}$", var.budget.billing_account))
    error_message = "budget.billing_account must be the id of a billing account, such as 012345-6789AB-CDEF01."
  }
  validation {
    condition     = var.budget == null || try(var.budget.monthly_amount >= 1 && floor(var.budget.monthly_amount) == var.budget.monthly_amount, false)
    error_message = "budget.monthly_amount must be a whole number, at least 1."
  }
}

variable "request_logs" {
  description = "Keep Cloud Run's log line for each successful request, in addition to the function's own line for each event."
  type        = bool
  default     = true
}

variable "identities" {
  description = "E-mail addresses of existing service accounts that the parts run as; those left out are created. `backfill` is used with `backfill.enabled`, `refresh` with `refresh.enabled`."
  type = object({
    runtime  = optional(string)
    trigger  = optional(string)
    build    = optional(string)
    backfill = optional(string)
    refresh  = optional(string)
  })
  default = {}

  validation {
    condition     = alltrue([for email in values(var.identities) : can(regex("^[a-z0-9-]+@[a-z0-9.:-]+\\.gserviceaccount\\.com$", email)) if email != null])
    error_message = "identities must be e-mail addresses of service accounts, such as ingest@my-project.iam.gserviceaccount.com: no serviceAccount:, no names."
  }
}

variable "grants" {
  description = "Create the grants and custom roles. Without it, another team creates what the output `grants` lists."
  type        = bool
  default     = true
}

variable "kms_key" {
  description = "Cloud KMS key (`projects/P/locations/L/keyRings/R/cryptoKeys/K`) that encrypts everything created here: a new bucket, dataset, topic, function, image, source, staging, and Eventarc's events. `region`, bucket and dataset must be in its location."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key == null || can(regex("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key))
    error_message = "kms_key must be the full name of a key: projects/P/locations/L/keyRings/R/cryptoKeys/K."
  }
}

variable "kms_grants" {
  description = "Grant the service agents the use of `kms_key`. Without it, the team that owns the key grants what the output `grants` lists, before the apply."
  type        = bool
  default     = true
}

variable "topic_regions" {
  description = "Regions that messages of the topics created here may be stored in; by default what the organisation policy allows."
  type        = list(string)
  default     = null

  validation {
    condition     = var.topic_regions == null || try(length(var.topic_regions) > 0 && alltrue([for region in var.topic_regions : can(regex("^[a-z]+-[a-z]+[0-9]+$", region))]), false)
    error_message = "topic_regions must name at least one region, such as europe-west4, or be left out."
  }
}

variable "vpc" {
  description = "Network, by Direct VPC egress, that the function's traffic leaves through: `subnetwork`, by its full name for a Shared VPC, or `network`. All traffic with `all_traffic`, otherwise that to private addresses."
  type = object({
    network     = optional(string)
    subnetwork  = optional(string)
    tags        = optional(list(string))
    all_traffic = optional(bool, true)
  })
  default = null

  validation {
    condition     = var.vpc == null || try(var.vpc.network != null || var.vpc.subnetwork != null, false)
    error_message = "vpc must name a network or a subnetwork."
  }
  validation {
    condition     = var.vpc == null || var.vpc_connector == null
    error_message = "vpc and vpc_connector exclude each other: traffic leaves by Direct VPC egress or by a connector."
  }
}

variable "vpc_connector" {
  description = "Serverless VPC Access connector (`projects/P/locations/L/connectors/C`) that the function's traffic leaves through: all of it with `all_traffic`, otherwise that to private addresses."
  type = object({
    id          = string
    all_traffic = optional(bool, true)
  })
  default = null

  validation {
    condition     = var.vpc_connector == null || can(regex("^projects/[^/]+/locations/[^/]+/connectors/[^/]+$", var.vpc_connector.id))
    error_message = "vpc_connector.id must be the full name of a connector: projects/P/locations/L/connectors/C."
  }
}

variable "build" {
  description = "How Cloud Build builds the function: in a private `worker_pool` (`projects/P/locations/L/workerPools/W`), into an existing `docker_repository` (`projects/P/locations/L/repositories/R`)."
  type = object({
    worker_pool       = optional(string)
    docker_repository = optional(string)
  })
  default = {}

  validation {
    condition     = var.build.worker_pool == null || can(regex("^projects/[^/]+/locations/[^/]+/workerPools/[^/]+$", var.build.worker_pool))
    error_message = "build.worker_pool must be the full name of a pool: projects/P/locations/L/workerPools/W."
  }
  validation {
    condition     = var.build.docker_repository == null || can(regex("^projects/[^/]+/locations/[^/]+/repositories/[^/]+$", var.build.docker_repository))
    error_message = "build.docker_repository must be the full name of a repository: projects/P/locations/L/repositories/R."
  }
  validation {
    condition     = var.build.docker_repository == null || var.kms_key == null
    error_message = "build.docker_repository and kms_key exclude each other: with a key, a repository under that key is created."
  }
}

variable "backfill" {
  description = "Creates what `dcm2bq backfill` needs on Dataflow: a staging bucket in the dataset's location, whose files expire after `staging_days`, and an identity for the workers. Workers run in `subnetwork` (`regions/R/subnetworks/S`, or its URL), without `public_addresses` if that is false."
  type = object({
    enabled          = optional(bool, false)
    staging_days     = optional(number, 14)
    subnetwork       = optional(string)
    public_addresses = optional(bool, true)
  })
  default = {}

  validation {
    condition     = var.backfill.staging_days >= 1 && var.backfill.staging_days <= 90
    error_message = "backfill.staging_days must be from 1 to 90: staged files hold patient data."
  }
  validation {
    condition     = var.backfill.subnetwork == null || can(regex("(^|/)regions/[^/]+/subnetworks/[^/]+$", var.backfill.subnetwork))
    error_message = "backfill.subnetwork must be regions/R/subnetworks/S, or the URL of a subnetwork."
  }
}

variable "refresh" {
  description = "Runs `dcm2bq refresh` in BigQuery every `every_hours` (1 to 24), as a scheduled query with an identity of its own. Only for the deployment that owns the dataset."
  type = object({
    enabled     = optional(bool, false)
    every_hours = optional(number, 24)
  })
  default = {}

  validation {
    condition     = var.refresh.every_hours >= 1 && var.refresh.every_hours <= 24 && floor(var.refresh.every_hours) == var.refresh.every_hours
    error_message = "refresh.every_hours must be a whole number from 1 to 24."
  }
  validation {
    condition     = !(var.refresh.enabled && var.dataset.existing)
    error_message = "refresh.enabled must be left out with dataset.existing: the deployment that owns the dataset refreshes it."
  }
}

variable "python" {
  description = "Python 3.8 or later on the machine that applies: it sets what no resource can set, by the standard library only."
  type        = string
  default     = "python3"
}
