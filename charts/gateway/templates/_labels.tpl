{{- define "fullname" -}}{{ .Values.gateway }}-{{ .Values.topology }}{{- end -}}

{{- define "selector" -}}
istio: {{ .Values.istio | quote }}
isthmus.dev/topology: {{ .Values.topology | quote }}
isthmus.dev/component: {{ .Values.component | quote }}
isthmus.dev/gateway: {{ .Values.gateway | quote }}
{{- end -}}

{{- define "labels" -}}
{{ include "selector" . }}
app: {{ include "fullname" . }}
app.kubernetes.io/name: {{ .Values.component }}
app.kubernetes.io/instance: {{ include "fullname" . }}
app.kubernetes.io/part-of: isthmus
{{- end -}}
