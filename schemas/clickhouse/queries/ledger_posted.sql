SELECT id, any(topic) AS topic, any(partition) AS partition
FROM ledger_findings
GROUP BY id
HAVING argMax(state, posted) = 'missing'
