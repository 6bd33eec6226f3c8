override_resource {
  target = google_project_service_identity.agent["eventarc"]
  values = { member = "serviceAccount:eventarc-agent" }
}

override_resource {
  target = google_project_service_identity.agent["pubsub"]
  values = { member = "serviceAccount:pubsub-agent" }
}
