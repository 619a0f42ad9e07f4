{{- define "stoa.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "stoa.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: stoa
{{ include "stoa.selector" . }}
{{- end -}}

{{- define "stoa.selector" -}}
app.kubernetes.io/name: stoa
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "stoa.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* The services and where they listen, in the order of docs/fleet.md. */}}
{{- define "stoa.services" -}}
{"identity":7101,"catalog":7102,"inventory":7103,"cart":7104,"ordering":7105,"payment":7106,"shipping":7107,"notification":7108,"orderview":7109}
{{- end -}}

{{- define "stoa.gatewayPort" -}}8080{{- end -}}

{{/* What holds for one component, as YAML. */}}
{{- define "stoa.component" -}}
{{- $own := default (dict) (index .root.Values.components .component) -}}
{{- mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy $own) | toYaml -}}
{{- end -}}

{{/* The map of the fleet as one service has it: with its own password and no other's. */}}
{{- define "stoa.map" -}}
{{- $component := .component -}}
{{- $password := default "" (index .root.Values.passwords $component) | urlquery | replace "+" "%20" -}}
secret_file = "fleet.secret"
plain = {{ .root.Values.fleet.plain | toJson }}
{{- range $key, $value := .root.Values.engines }}
{{- if kindIs "string" $value }}
{{ $key }} = {{ $value | replace "{password}" $password | toJson }}
{{- else if kindIs "map" $value }}
{{ $key }} = { {{ range $inner, $text := $value }}{{ $inner }} = {{ $text | replace "{password}" $password | toJson }}{{ end }} }
{{- end }}
{{- end }}

[services]
{{- range $service, $port := include "stoa.services" .root | fromJson }}
{{ $service }} = {{ include "stoa.place" (dict "root" $.root "service" $service "port" (int $port)) }}
{{- end }}
{{- end -}}

{{/* Where the copies of a service are: every address that its headless Service has. */}}
{{- define "stoa.place" -}}
"dns://{{ include "stoa.fullname" .root }}-{{ .service }}:{{ .port }}"
{{- end -}}

{{- define "stoa.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "stoa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Map and key of the fleet, as one volume. */}}
{{- define "stoa.mapVolume" -}}
- name: fleet
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ default (printf "%s-%s-map" (include "stoa.fullname" .root) .component) (index .root.Values.existingMaps .component) }}
          items:
            - key: fleet.toml
              path: fleet.toml
      - secret:
          name: {{ default (printf "%s-fleet" (include "stoa.fullname" .root)) .root.Values.fleet.existingSecret }}
          items:
            - key: fleet.secret
              path: fleet.secret
- name: data
  emptyDir: {}
- name: tmp
  emptyDir: {}
{{- end -}}

{{- define "stoa.mounts" -}}
- name: fleet
  mountPath: /etc/stoa
  readOnly: true
- name: data
  mountPath: /var/lib/stoa
- name: tmp
  mountPath: /tmp
{{- end -}}
