// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

func (p *packer) accessLog(a *ir.AccessLog) *accesslogv3.AccessLog {
	f := &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: a.Format},
		}},
	}
	if len(a.Fields) > 0 {
		f.Format = &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: fields(a.Fields)}
	}
	m := &accesslogv3.AccessLog{
		Name: "envoy.access_loggers.file",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: p.any(&filev3.FileAccessLog{
			Path:            a.Path,
			AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: f},
		})},
	}
	if a.OnlyRefused {
		// NR: no filter chain found.
		m.Filter = &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
			ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{"NR"}},
		}}
	}
	return m
}
