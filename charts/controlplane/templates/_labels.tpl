{{- define "selector" -}}
app: isthmusd
isthmus.dev/topology: {{ .Values.topology | quote }}
isthmus.dev/component: control-plane
isthmus.dev/revision: {{ .Values.revision | quote }}
{{- end -}}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/name: isthmusd
app.kubernetes.io/instance: isthmusd-{{ .Values.topology }}
app.kubernetes.io/part-of: isthmus
istio: pilot
istio.io/rev: {{ .Values.revision | quote }}
{{- end -}}
