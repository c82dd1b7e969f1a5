/** client.js is compiled from clients/typescript/client.ts, by `make clients`. */
export * from '../../../clients/typescript/client';
