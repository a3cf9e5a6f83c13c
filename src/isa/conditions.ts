/** Names of the sixteen conditions of Jcc, SETcc and CMOVcc by their code. SDM 1, appendix B. */
export const CONDITIONS = ['O', 'NO', 'B', 'AE', 'E', 'NE', 'BE', 'A', 'S', 'NS', 'P', 'NP', 'L', 'GE', 'LE', 'G'] as const;
