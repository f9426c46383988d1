CREATE OR REPLACE VIEW interactions_by_id AS
WITH
    (
        SELECT mapFromArrays(groupArray(app), groupArray(value))
        FROM (SELECT app, argMax(value, updated) AS value FROM settings WHERE name = 'lane' GROUP BY app)
    ) AS lanes
SELECT
    app,
    environment,
    id,
    records,
    parts,
    first_arrival,
    last_arrival,
    version,
    span.1 AS kind,
    span.2 AS provider,
    span.3 AS request_model,
    span.4 AS response_model,
    span.5 AS prompt_name,
    span.6 AS prompt_version,
    span.7 AS arm,
    span.8 AS route_epoch,
    span.9 AS turn,
    span.10 AS conversation,
    span.11 AS trace_id,
    span.12 AS span_id,
    span.13 AS parent_id,
    span.14 AS user,
    span.15 AS event_time,
    span.16 AS input_tokens,
    span.17 AS output_tokens,
    span.18 AS latency_us,
    span.19 AS first_chunk_us,
    span.20 AS cost_microusd,
    span.21 AS error_type,
    span.22 AS finish_reasons,
    span.23 AS attributes,
    content.1 AS prompt,
    content.2 AS response,
    content.3 AS messages,
    content.4 AS tool_calls,
    content.5 AS documents,
    content.6 AS parts_not_scored,
    content.7 AS text_truncated,
    if(span_at > content_at, mapUpdate(content.8, span.25), mapUpdate(span.25, content.8)) AS labels,
    multiIf(
        span.26 = content.9 OR content.9 = '', span.26,
        span.26 = '', content.9,
        span_at > content_at, jsonMergePatch(content.9, span.26),
        jsonMergePatch(span.26, content.9)) AS reasons,
    arrayDistinct(arrayConcat(span.27, content.10)) AS score_errors,
    if(span_at > content_at, mapUpdate(content.11, span.24), mapUpdate(span.24, content.11)) AS scores
FROM
(
    SELECT
        app,
        environment,
        id,
        uniqExact(topic_id, partition, offset) AS records,
        groupUniqArray(part) AS parts,
        min(arrival) AS first_arrival,
        max(arrival) AS last_arrival,
        argMax(version, (part != 'content', arrival, partition, offset)) AS version,
        argMaxIf(
            (kind, provider, request_model, response_model, prompt_name, prompt_version, arm, route_epoch, turn, conversation,
             trace_id, span_id, parent_id, user, event_time, input_tokens, output_tokens, latency_us, first_chunk_us,
             cost_microusd, error_type, finish_reasons, attributes, scores, labels, reasons, score_errors),
            (arrival, partition, offset), part IN ('whole', 'span')) AS span,
        maxIf((arrival, partition, offset), part IN ('whole', 'span')) AS span_at,
        maxIf((arrival, partition, offset), part IN ('whole', 'content')) AS content_at,
        argMaxIf(
            (prompt, response, messages, tool_calls, documents, parts_not_scored, text_truncated, labels, reasons, score_errors, scores),
            (arrival, partition, offset), part IN ('whole', 'content')) AS content
    FROM interactions
    WHERE lane = if(mapContains(lanes, app), lanes[app], 'live')
    GROUP BY app, environment, id
)
