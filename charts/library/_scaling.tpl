{{- /* scaling: disruption budget from two replicas on, autoscaler if it has room.
       Takes {name, root}; root needs the templates "labels" and "selector". */ -}}
{{- define "scaling" -}}
{{- $r := .root.Values.workload.replicas }}
{{- if gt (int $r.min) 1 }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  namespace: {{ .root.Values.namespace }}
  labels: {{- include "labels" .root | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "selector" .root | nindent 6 }}
{{- end }}
{{- if gt (int $r.max) (int $r.min) }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .name }}
  namespace: {{ .root.Values.namespace }}
  labels: {{- include "labels" .root | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ .name }}
  minReplicas: {{ $r.min }}
  maxReplicas: {{ $r.max }}
  metrics:
  - type: Resource
    resource:
      name: cpu
      target: {type: Utilization, averageUtilization: {{ $r.targetCPU }}}
{{- end }}
{{- end -}}

{{- /* podSettings: what spec says of where pods run. Takes the root. */ -}}
{{- define "podSettings" -}}
{{- with .Values.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.scheduling }}
{{ toYaml . }}
{{- end }}
{{- end -}}
