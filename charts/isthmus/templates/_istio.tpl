{{- /* istio: rules over the kinds of Istio that control planes read. Takes the verbs. */ -}}
{{- define "istio" -}}
- apiGroups: [networking.istio.io]
  resources: [destinationrules, gateways, serviceentries, sidecars, virtualservices, workloadentries]
  verbs: {{ . }}
- apiGroups: [security.istio.io]
  resources: [peerauthentications]
  verbs: {{ . }}
{{- end -}}
