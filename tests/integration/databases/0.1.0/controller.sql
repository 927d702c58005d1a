BEGIN TRANSACTION;
CREATE TABLE attempts (
    namespace TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    job TEXT NOT NULL,
    number INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    node TEXT NOT NULL,
    state INTEGER NOT NULL,
    reason_code TEXT NOT NULL,
    reason_number INTEGER NOT NULL,
    reason_message TEXT NOT NULL,
    create_time INTEGER NOT NULL,
    start_time INTEGER,
    end_time INTEGER, holds TEXT NOT NULL DEFAULT '[]', ended_inputs TEXT NOT NULL DEFAULT '[]', artifacts TEXT NOT NULL DEFAULT '[]', still TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (namespace, pipeline, job, number)
) WITHOUT ROWID;
INSERT INTO "attempts" VALUES('default','counting-8a221d','double',1,1,'b',7,'',0,'',1796011061689301,1796011062860598,1796011063840742,'[]','["numbers"]','[]','[]');
INSERT INTO "attempts" VALUES('default','counting-8a221d','sink',1,1,'c',7,'',0,'',1796011061689301,1796011062831302,1796011063839329,'[]','["values"]','[]','[]');
INSERT INTO "attempts" VALUES('default','counting-8a221d','source',1,1,'a',7,'',0,'',1796011061689301,1796011062877911,1796011063792716,'[]','[]','[]','[]');
INSERT INTO "attempts" VALUES('default','fails-0a2b28','fails',1,1,'a',8,'EXIT',3,'fails ended with exit status 3',1796011065659642,1796011065692754,1796011065693877,'[]','[]','[]','[]');
INSERT INTO "attempts" VALUES('default','fails-0a2b28','fails',2,2,'a',8,'EXIT',3,'fails ended with exit status 3',1796011065813817,1796011065840585,1796011065840186,'[]','[]','[]','[]');
INSERT INTO "attempts" VALUES('default','long-ac332e','long',1,1,'a',4,'',0,'',1796011066668379,1796011066699847,NULL,'[]','[]','[]','[]');
CREATE TABLE certificates (
    serial TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    namespace TEXT NOT NULL,
    issue_time INTEGER NOT NULL,
    expire_time INTEGER NOT NULL,
    key_hash TEXT NOT NULL,
    authority TEXT NOT NULL,
    pem BLOB NOT NULL,
    token_id TEXT NOT NULL,
    revoke_time INTEGER,
    replaced_by TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "certificates" VALUES('50e2b1f066ac9fb44f49f9a43f653a4e1815ea6f','node','c','',1796011059449484,1827547059000000,'76967041e4e57b9f9becd159fbf6b3be82f036b09c74910609f6e0aa924beed5','810efc791bc834376870bbeb1781a39ea462f24cfb96500eaba0b60f2f6e6b6f',X'2D2D2D2D2D424547494E2043455254494649434154452D2D2D2D2D0A4D4949422F44434341614B674177494241674955554F4B78384761736E37525053666D6B5032553654686756366D3877436759494B6F5A497A6A3045417749770A495445664D423047413155454177775755326876595777674E5468684D7A4A6B4E444A6A5A4449324D445A6B4E544165467730334D4441784D4445774D4441770A4D444661467730794E7A45784D7A41774D7A55334D7A6C614D417778436A414942674E5642414D4D41574D775754415442676371686B6A4F50514942426767710A686B6A4F50514D4242774E434141514C5151796B4C633330366F3373676677594164777A556B6F4F69442B5A6F53724639784F32636B3376536952666F5856350A38655543366170685656326158394453665165447542307050534451716D6147367A73426F34484D4D49484A4D456F4741315564455152444D45474749484E770A61575A6D5A546F764C7A553459544D795A445179593251794E6A41325A445576626D396B5A53396A6768316A4C6D35765A4755754E5468684D7A4A6B4E444A6A0A5A4449324D445A6B4E53357A614739686244414D42674E5648524D4241663845416A41414D41344741315564447745422F775145417749486744416442674E560A48535545466A4155426767724267454642516344415159494B7759424251554841774977485159445652304F42425945464949356C4865465430314B636D62450A376E366F466C6C4E483751504D42384741315564497751594D42614146434C4D6E6937363542415756457A4E707253666B6673314B54417A4D416F47434371470A534D343942414D43413067414D45554349514465326C6C6B78736471483550575A75774B614958496C4A77396A44663652765A4952784E487751534D627749670A664A6557657159556F4E4861485078645373534E34615447356A52352F2F54573251446E653271636145343D0A2D2D2D2D2D454E442043455254494649434154452D2D2D2D2D0A','1780e0ea',NULL,'');
INSERT INTO "certificates" VALUES('550077460b026cf933761cd733291b44512c8d8b','node','b','',1796011057136554,1827547057000000,'36a3c88c248e28da49cb36d05df541eac88dfa790c396b90747c9a3c464e7ab8','810efc791bc834376870bbeb1781a39ea462f24cfb96500eaba0b60f2f6e6b6f',X'2D2D2D2D2D424547494E2043455254494649434154452D2D2D2D2D0A4D4949422F44434341614B674177494241674955565142335267734362506B7A64687A584D796B62524645736A597377436759494B6F5A497A6A3045417749770A495445664D423047413155454177775755326876595777674E5468684D7A4A6B4E444A6A5A4449324D445A6B4E544165467730334D4441784D4445774D4441770A4D444661467730794E7A45784D7A41774D7A55334D7A64614D417778436A414942674E5642414D4D415749775754415442676371686B6A4F50514942426767710A686B6A4F50514D4242774E434141513056444B64773647712B6C43344F5A594267487552756F4E496961793863755039597772694F522F7573366C73514869530A7442696F4643344F414144547A34326D4C66435A3862797573365A536F4A6C6B6C7241616F34484D4D49484A4D456F4741315564455152444D45474749484E770A61575A6D5A546F764C7A553459544D795A445179593251794E6A41325A445576626D396B5A533969676831694C6D35765A4755754E5468684D7A4A6B4E444A6A0A5A4449324D445A6B4E53357A614739686244414D42674E5648524D4241663845416A41414D41344741315564447745422F775145417749486744416442674E560A48535545466A4155426767724267454642516344415159494B7759424251554841774977485159445652304F42425945464F674232493662423353705A6431790A4F546F72715967424B6831694D42384741315564497751594D42614146434C4D6E6937363542415756457A4E707253666B6673314B54417A4D416F47434371470A534D343942414D43413067414D4555434951433045715445434A4B6C796173593047444B784B365070756B4A306C79393141457062776B726C776C79736749670A536379336A5049554C4A6A4C7A7A41624B69334975774945736165583462433947336A7A354858426D34733D0A2D2D2D2D2D454E442043455254494649434154452D2D2D2D2D0A','1780e0ea',NULL,'');
INSERT INTO "certificates" VALUES('7d1fb80b3ddf2a6c010929117639478a5f4b93fd','node','a','',1796011054182240,1827547054000000,'6e1e1fd05e86899fd0f13761e39c657063f6eb07e12b960f9e2ed03e3a2a9e61','810efc791bc834376870bbeb1781a39ea462f24cfb96500eaba0b60f2f6e6b6f',X'2D2D2D2D2D424547494E2043455254494649434154452D2D2D2D2D0A4D4949422F44434341614B67417749424167495566522B34437A33664B6D774243536B52646A6C48696C394C6B2F3077436759494B6F5A497A6A3045417749770A495445664D423047413155454177775755326876595777674E5468684D7A4A6B4E444A6A5A4449324D445A6B4E544165467730334D4441784D4445774D4441770A4D444661467730794E7A45784D7A41774D7A55334D7A52614D417778436A414942674E5642414D4D415745775754415442676371686B6A4F50514942426767710A686B6A4F50514D4242774E43414152544E5A5636336F7A32756B656D523641692F32444D2F466133724F764C7242442B6C53676974654731774F5734596C4A650A6F6E5A4B4B7663654743412F4A7962394C6A49524D5A53787256522F6234576B2F426E776F34484D4D49484A4D456F4741315564455152444D45474749484E770A61575A6D5A546F764C7A553459544D795A445179593251794E6A41325A445576626D396B5A533968676831684C6D35765A4755754E5468684D7A4A6B4E444A6A0A5A4449324D445A6B4E53357A614739686244414D42674E5648524D4241663845416A41414D41344741315564447745422F775145417749486744416442674E560A48535545466A4155426767724267454642516344415159494B7759424251554841774977485159445652304F42425945464931716252576F51554867383050740A3466736C55392B386E336C5A4D42384741315564497751594D42614146434C4D6E6937363542415756457A4E707253666B6673314B54417A4D416F47434371470A534D343942414D43413067414D4555434946474237472B736A7551704F723864552B6F4774654D46427346335336776C673342676970533458776F6A416945410A39494756384C352F327845754873344C427177575645446632524F414375486673413864356D35434248513D0A2D2D2D2D2D454E442043455254494649434154452D2D2D2D2D0A','1780e0ea',NULL,'');
INSERT INTO "certificates" VALUES('e477b022cc81aade362f3a7ecd6f5b519eceb80','operator','local','',1796011052433644,1827547052000000,'13afeed1783136c18ef2696fd5951da43cc2b02be0d7bcbf1f58fd3276b04fe3','810efc791bc834376870bbeb1781a39ea462f24cfb96500eaba0b60f2f6e6b6f',X'2D2D2D2D2D424547494E2043455254494649434154452D2D2D2D2D0A4D49494345544343416261674177494241674955446B643741697A494771336A59764F6E374E623174526E7336344177436759494B6F5A497A6A3045417749770A495445664D423047413155454177775755326876595777674E5468684D7A4A6B4E444A6A5A4449324D445A6B4E544165467730334D4441784D4445774D4441770A4D444661467730794E7A45784D7A41774D7A55334D7A4A614D424178446A414D42674E5642414D4D42577876593246734D466B77457759484B6F5A497A6A30430A415159494B6F5A497A6A3044415163445167414535496E546D4456687571426431786D424C4A4E7062426E72684351465A4E726F4A33506A59634A54653877660A385765584F616E792B686875526536462B6E796A717258427054384157576755636D57556732724174364F42334443423254426142674E5648524545557A42520A6869687A63476C6D5A6D55364C7938314F47457A4D6D51304D6D4E6B4D6A59774E6D51314C3239775A584A68644739794C327876593246736769567362324E680A624335766347567959585276636934314F47457A4D6D51304D6D4E6B4D6A59774E6D51314C6E4E6F623246734D41774741315564457745422F7751434D4141770A44675944565230504151482F42415144416765414D423047413155644A5151574D425147434373474151554642774D42426767724267454642516344416A41640A42674E564851344546675155554236304669316A4D4C376832714C625A674F506754464334554577487759445652306A42426777466F4155497379654C76726B0A45425A55544D326D744A2B522B7A55704D444D77436759494B6F5A497A6A30454177494453514177526749684149554C4644775A4A7769555A5A367A676570390A78754D4F79723644686A4938646F66715136556E6E654D49416945417A466E59767464383766746469592F55703842323962434E62344D6F424F574A696F78760A686A43704B52633D0A2D2D2D2D2D454E442043455254494649434154452D2D2D2D2D0A','',NULL,'');
CREATE TABLE cluster (id TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO "cluster" VALUES('58a32d42cd2606d5');
CREATE TABLE jobs (
    namespace TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    job TEXT NOT NULL,
    state INTEGER NOT NULL,
    reason_code TEXT NOT NULL,
    reason_number INTEGER NOT NULL,
    reason_message TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    retry_time INTEGER,
    pinned_node TEXT NOT NULL,
    avoid TEXT NOT NULL, ends TEXT,
    PRIMARY KEY (namespace, pipeline, job)
) WITHOUT ROWID;
INSERT INTO "jobs" VALUES('default','counting-8a221d','double',7,'',0,'',1,1,0,0,NULL,'','[]',NULL);
INSERT INTO "jobs" VALUES('default','counting-8a221d','sink',7,'',0,'',1,1,0,0,NULL,'','[]',NULL);
INSERT INTO "jobs" VALUES('default','counting-8a221d','source',7,'',0,'',1,1,0,0,NULL,'','[]',NULL);
INSERT INTO "jobs" VALUES('default','fails-0a2b28','fails',8,'EXIT',3,'fails ended with exit status 3',2,2,2,0,NULL,'','[]',NULL);
INSERT INTO "jobs" VALUES('default','long-ac332e','long',4,'',0,'',1,1,0,0,NULL,'','[]',NULL);
CREATE TABLE manifests (
    namespace TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    job TEXT NOT NULL,
    number INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    key TEXT NOT NULL,
    artifacts TEXT NOT NULL,
    commit_time INTEGER NOT NULL,
    PRIMARY KEY (namespace, pipeline, job)
) WITHOUT ROWID;
INSERT INTO "manifests" VALUES('default','counting-8a221d','double',1,1,'default/pipelines/counting-8a221d/jobs/double/manifest.json','[]',1796011063951963);
INSERT INTO "manifests" VALUES('default','counting-8a221d','sink',1,1,'default/pipelines/counting-8a221d/jobs/sink/manifest.json','[["results/count",3,"37834f2f25762f23e1f74a531cbe445db73d6765ebe60878a7dfbecd7d4af6e1","default/pipelines/counting-8a221d/jobs/sink/attempts/1-1/out/results/count"]]',1796011063901397);
INSERT INTO "manifests" VALUES('default','counting-8a221d','source',1,1,'default/pipelines/counting-8a221d/jobs/source/manifest.json','[["results/count",3,"37834f2f25762f23e1f74a531cbe445db73d6765ebe60878a7dfbecd7d4af6e1","default/pipelines/counting-8a221d/jobs/source/attempts/1-1/out/results/count"]]',1796011064036256);
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "meta" VALUES('generation',1);
CREATE TABLE nodes (
    name TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL,
    cpus REAL NOT NULL,
    memory_bytes INTEGER NOT NULL,
    devices TEXT NOT NULL,
    labels TEXT NOT NULL,
    architecture TEXT NOT NULL,
    stream_address TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    member_name TEXT NOT NULL,
    drained INTEGER NOT NULL,
    last_seen_time INTEGER
, instance_id TEXT NOT NULL DEFAULT '', presence TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
INSERT INTO "nodes" VALUES('a','c4793354',4.0,25276510208,'[]','{"board":"a"}','x86_64','127.0.0.1:36437','0.1.0','a',0,1796011068706787,'aa10d9d1','up');
INSERT INTO "nodes" VALUES('b','66ecb93c',4.0,25276510208,'[]','{"board":"b"}','x86_64','127.0.0.1:44271','0.1.0','b',0,1796011067974230,'cb4496d7','up');
INSERT INTO "nodes" VALUES('c','ee228ecc',4.0,25276510208,'[]','{"board":"c"}','x86_64','127.0.0.1:42547','0.1.0','c',1,1796011068930269,'3923acf9','up');
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    subject TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    time INTEGER NOT NULL,
    key TEXT NOT NULL,
    data TEXT NOT NULL,
    published INTEGER NOT NULL DEFAULT 0
, problem TEXT NOT NULL DEFAULT '');
INSERT INTO "outbox" VALUES(1,'note','','operator','callers/operator/local','callers/operator/local/called/1','shoal.caller.called',1796011052889024,'','{"address":"127.0.0.1","caller":"operator/local","method":"IdentityService.CreateToken","name":"1780e0ea","namespace":"","state":"called","user":""}',0,'');
INSERT INTO "outbox" VALUES(2,'event','','node','identities/node/a','identities/node/a/joined/7d1fb80b3ddf2a6c010929117639478a5f4b93fd','shoal.identity.joined',1796011054184192,'','{"address":"127.0.0.1","creator":"operator/local","name":"a","replaced":[],"role":"node","role_namespace":"","serial":"7d1fb80b3ddf2a6c010929117639478a5f4b93fd","state":"joined","token":"1780e0ea"}',0,'');
INSERT INTO "outbox" VALUES(3,'state','','a','nodes/a','nodes/a/up/3','shoal.node.up',1796011055525362,'','{"drained":false,"node":"a","presence":"up","quarantine":"","reason":{"code":"","message":"","number":0},"state":"up"}',0,'');
INSERT INTO "outbox" VALUES(4,'event','','node','identities/node/b','identities/node/b/joined/550077460b026cf933761cd733291b44512c8d8b','shoal.identity.joined',1796011057137864,'','{"address":"127.0.0.1","creator":"operator/local","name":"b","replaced":[],"role":"node","role_namespace":"","serial":"550077460b026cf933761cd733291b44512c8d8b","state":"joined","token":"1780e0ea"}',0,'');
INSERT INTO "outbox" VALUES(5,'state','','b','nodes/b','nodes/b/up/5','shoal.node.up',1796011057861388,'','{"drained":false,"node":"b","presence":"up","quarantine":"","reason":{"code":"","message":"","number":0},"state":"up"}',0,'');
INSERT INTO "outbox" VALUES(6,'event','','node','identities/node/c','identities/node/c/joined/50e2b1f066ac9fb44f49f9a43f653a4e1815ea6f','shoal.identity.joined',1796011059452075,'','{"address":"127.0.0.1","creator":"operator/local","name":"c","replaced":[],"role":"node","role_namespace":"","serial":"50e2b1f066ac9fb44f49f9a43f653a4e1815ea6f","state":"joined","token":"1780e0ea"}',0,'');
INSERT INTO "outbox" VALUES(8,'note','','operator','callers/operator/local','callers/operator/local/called/8','shoal.caller.called',1796011061685920,'','{"address":"127.0.0.1","caller":"operator/local","method":"PipelinesService.SubmitPipelines","name":"pipelines/counting-8a221d","namespace":"default","state":"called","user":""}',0,'');
INSERT INTO "outbox" VALUES(9,'event','default','counting-8a221d','pipelines/counting-8a221d/jobs/sink','default/pipelines/counting-8a221d/jobs/sink/running/1','shoal.job.running',1796011062847505,'','{"attempt":"pipelines/counting-8a221d/jobs/sink/attempts/1","epoch":1,"job":"sink","namespace":"default","node":"c","pipeline":"counting-8a221d","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(10,'event','default','counting-8a221d','pipelines/counting-8a221d','default/pipelines/counting-8a221d/running/1','shoal.pipeline.running',1796011062847505,'','{"jobs":{"double":"preparing","sink":"running","source":"preparing"},"namespace":"default","pipeline":"counting-8a221d","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(11,'event','default','counting-8a221d','pipelines/counting-8a221d/jobs/source','default/pipelines/counting-8a221d/jobs/source/running/1','shoal.job.running',1796011062892122,'','{"attempt":"pipelines/counting-8a221d/jobs/source/attempts/1","epoch":1,"job":"source","namespace":"default","node":"a","pipeline":"counting-8a221d","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(12,'event','default','counting-8a221d','pipelines/counting-8a221d/jobs/double','default/pipelines/counting-8a221d/jobs/double/running/1','shoal.job.running',1796011062907893,'','{"attempt":"pipelines/counting-8a221d/jobs/double/attempts/1","epoch":1,"job":"double","namespace":"default","node":"b","pipeline":"counting-8a221d","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(14,'event','default','counting-8a221d','pipelines/counting-8a221d/jobs/sink','default/pipelines/counting-8a221d/jobs/sink/succeeded/1','shoal.job.succeeded',1796011063901397,'','{"attempt":"pipelines/counting-8a221d/jobs/sink/attempts/1","epoch":1,"job":"sink","manifest":{"artifacts":[{"key":"default/pipelines/counting-8a221d/jobs/sink/attempts/1-1/out/results/count","path":"results/count","sha256":"37834f2f25762f23e1f74a531cbe445db73d6765ebe60878a7dfbecd7d4af6e1","size_bytes":3}],"key":"default/pipelines/counting-8a221d/jobs/sink/manifest.json"},"namespace":"default","node":"c","pipeline":"counting-8a221d","reason":{"code":"","message":"","number":0},"state":"succeeded"}',0,'');
INSERT INTO "outbox" VALUES(16,'event','default','counting-8a221d','pipelines/counting-8a221d/jobs/double','default/pipelines/counting-8a221d/jobs/double/succeeded/1','shoal.job.succeeded',1796011063951963,'','{"attempt":"pipelines/counting-8a221d/jobs/double/attempts/1","epoch":1,"job":"double","manifest":{"artifacts":[],"key":"default/pipelines/counting-8a221d/jobs/double/manifest.json"},"namespace":"default","node":"b","pipeline":"counting-8a221d","reason":{"code":"","message":"","number":0},"state":"succeeded"}',0,'');
INSERT INTO "outbox" VALUES(18,'event','default','counting-8a221d','pipelines/counting-8a221d/jobs/source','default/pipelines/counting-8a221d/jobs/source/succeeded/1','shoal.job.succeeded',1796011064036256,'','{"attempt":"pipelines/counting-8a221d/jobs/source/attempts/1","epoch":1,"job":"source","manifest":{"artifacts":[{"key":"default/pipelines/counting-8a221d/jobs/source/attempts/1-1/out/results/count","path":"results/count","sha256":"37834f2f25762f23e1f74a531cbe445db73d6765ebe60878a7dfbecd7d4af6e1","size_bytes":3}],"key":"default/pipelines/counting-8a221d/jobs/source/manifest.json"},"namespace":"default","node":"a","pipeline":"counting-8a221d","reason":{"code":"","message":"","number":0},"state":"succeeded"}',0,'');
INSERT INTO "outbox" VALUES(19,'event','default','counting-8a221d','pipelines/counting-8a221d','default/pipelines/counting-8a221d/succeeded/1','shoal.pipeline.succeeded',1796011064036256,'','{"artifacts":[{"job":"source","key":"default/pipelines/counting-8a221d/jobs/source/attempts/1-1/out/results/count","path":"results/count","sha256":"37834f2f25762f23e1f74a531cbe445db73d6765ebe60878a7dfbecd7d4af6e1","size_bytes":3},{"job":"sink","key":"default/pipelines/counting-8a221d/jobs/sink/attempts/1-1/out/results/count","path":"results/count","sha256":"37834f2f25762f23e1f74a531cbe445db73d6765ebe60878a7dfbecd7d4af6e1","size_bytes":3}],"finished":false,"jobs":{"double":"succeeded","sink":"succeeded","source":"succeeded"},"manifests":"default/pipelines/counting-8a221d/jobs/*/manifest.json","mismatches":[],"namespace":"default","pipeline":"counting-8a221d","reason":{"code":"","message":"","number":0},"state":"succeeded"}',0,'');
INSERT INTO "outbox" VALUES(20,'note','','operator','callers/operator/local','callers/operator/local/called/20','shoal.caller.called',1796011065655897,'','{"address":"127.0.0.1","caller":"operator/local","method":"PipelinesService.SubmitPipelines","name":"pipelines/fails-0a2b28","namespace":"default","state":"called","user":""}',0,'');
INSERT INTO "outbox" VALUES(21,'event','default','fails-0a2b28','pipelines/fails-0a2b28/jobs/fails','default/pipelines/fails-0a2b28/jobs/fails/running/1','shoal.job.running',1796011065703154,'','{"attempt":"pipelines/fails-0a2b28/jobs/fails/attempts/1","epoch":1,"job":"fails","namespace":"default","node":"a","pipeline":"fails-0a2b28","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(22,'event','default','fails-0a2b28','pipelines/fails-0a2b28','default/pipelines/fails-0a2b28/running/1','shoal.pipeline.running',1796011065703154,'','{"jobs":{"fails":"running"},"namespace":"default","pipeline":"fails-0a2b28","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(23,'event','default','fails-0a2b28','pipelines/fails-0a2b28/jobs/fails','default/pipelines/fails-0a2b28/jobs/fails/retry/1','shoal.job.retry',1796011065712132,'','{"attempt":"pipelines/fails-0a2b28/jobs/fails/attempts/1","epoch":1,"failures":1,"failures_max":2,"job":"fails","losses":0,"namespace":"default","next_time":"2026-11-30T03:57:45.812132Z","node":"a","pipeline":"fails-0a2b28","reason":{"code":"EXIT","message":"fails ended with exit status 3","number":3},"state":"retry"}',0,'');
INSERT INTO "outbox" VALUES(24,'event','default','fails-0a2b28','pipelines/fails-0a2b28/jobs/fails','default/pipelines/fails-0a2b28/jobs/fails/running/2','shoal.job.running',1796011065852196,'','{"attempt":"pipelines/fails-0a2b28/jobs/fails/attempts/2","epoch":2,"job":"fails","namespace":"default","node":"a","pipeline":"fails-0a2b28","reason":{"code":"EXIT","message":"fails ended with exit status 3","number":3},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(25,'event','default','fails-0a2b28','pipelines/fails-0a2b28/jobs/fails','default/pipelines/fails-0a2b28/jobs/fails/failed/2','shoal.job.failed',1796011065861870,'','{"attempt":"pipelines/fails-0a2b28/jobs/fails/attempts/2","epoch":2,"job":"fails","namespace":"default","node":"a","pipeline":"fails-0a2b28","reason":{"code":"EXIT","message":"fails ended with exit status 3","number":3},"state":"failed"}',0,'');
INSERT INTO "outbox" VALUES(26,'event','default','fails-0a2b28','pipelines/fails-0a2b28','default/pipelines/fails-0a2b28/failed/1','shoal.pipeline.failed',1796011065861870,'','{"artifacts":[],"finished":false,"jobs":{"fails":"failed"},"manifests":"default/pipelines/fails-0a2b28/jobs/*/manifest.json","mismatches":[],"namespace":"default","pipeline":"fails-0a2b28","reason":{"code":"EXIT","message":"job fails failed (EXIT 3): fails ended with exit status 3","number":3},"state":"failed"}',0,'');
INSERT INTO "outbox" VALUES(27,'note','','operator','callers/operator/local','callers/operator/local/called/27','shoal.caller.called',1796011066661198,'','{"address":"127.0.0.1","caller":"operator/local","method":"PipelinesService.SubmitPipelines","name":"pipelines/long-ac332e","namespace":"default","state":"called","user":""}',0,'');
INSERT INTO "outbox" VALUES(28,'event','default','long-ac332e','pipelines/long-ac332e/jobs/long','default/pipelines/long-ac332e/jobs/long/running/1','shoal.job.running',1796011066706542,'','{"attempt":"pipelines/long-ac332e/jobs/long/attempts/1","epoch":1,"job":"long","namespace":"default","node":"a","pipeline":"long-ac332e","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(29,'event','default','long-ac332e','pipelines/long-ac332e','default/pipelines/long-ac332e/running/1','shoal.pipeline.running',1796011066706542,'','{"jobs":{"long":"running"},"namespace":"default","pipeline":"long-ac332e","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(30,'note','','operator','callers/operator/local','callers/operator/local/called/30','shoal.caller.called',1796011067834691,'','{"address":"127.0.0.1","caller":"operator/local","method":"PipelinesService.SubmitPipelines","name":"pipelines/waits-8e57e0","namespace":"default","state":"called","user":""}',0,'');
INSERT INTO "outbox" VALUES(31,'state','','c','nodes/c','nodes/c/drained/31','shoal.node.drained',1796011068608729,'','{"drained":true,"node":"c","presence":"up","quarantine":"","reason":{"code":"","message":"","number":0},"state":"drained"}',0,'');
INSERT INTO "outbox" VALUES(32,'note','','operator','callers/operator/local','callers/operator/local/called/32','shoal.caller.called',1796011068608729,'','{"address":"127.0.0.1","caller":"operator/local","method":"NodesService.DrainNode","name":"nodes/c","namespace":"","state":"called","user":""}',0,'');
CREATE TABLE pipelines (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    spec BLOB NOT NULL,
    create_time INTEGER NOT NULL,
    state INTEGER NOT NULL,
    reason_code TEXT NOT NULL DEFAULT '',
    reason_number INTEGER NOT NULL DEFAULT 0,
    reason_message TEXT NOT NULL DEFAULT '',
    stopped INTEGER NOT NULL DEFAULT 0,
    stop_code TEXT NOT NULL DEFAULT '',
    stop_number INTEGER NOT NULL DEFAULT 0,
    stop_message TEXT NOT NULL DEFAULT '',
    end_time INTEGER,
    final_event_id TEXT NOT NULL DEFAULT '', finish_time INTEGER, kind TEXT NOT NULL DEFAULT '', creator TEXT NOT NULL DEFAULT '',
    UNIQUE (namespace, id)
);
INSERT INTO "pipelines" VALUES(1,'default','counting-8a221d','16cce76bc2b949578875071e594b45ea',X'0A08636F756E74696E671240653837373537386361653563353234666539336635613266323037393766613666633737333638336139383261326530313032323563323966366334633733631AB5010A06736F757263651206707974686F6E1209736F757263652E707912302F746D702F73686F616C2D6D697865642D71793069613177632F636F756E74696E672D6879356D333678762E73746F701A002A110A076E756D62657273120408011001180130013A0909000000000000D03F420E0A0A0A05626F61726412016118014A0A726573756C74732F2A2A5214080111000000000000F03F190000000000004E4070017801810100000000000014408801019001011AAF010A06646F75626C651206707974686F6E1209646F75626C652E70791A00222A0A076E756D62657273121F0A06736F7572636512076E756D626572731A040801100120012801380140012A110A07646F75626C6573120408011001180130013A0909000000000000D03F420E0A0A0A05626F61726412016218014A0A726573756C74732F2A2A5214080111000000000000F03F190000000000004E4070017801810100000000000014408801019001011A97010A0473696E6B1206707974686F6E120773696E6B2E70791A0022290A0676616C756573121F0A06646F75626C651207646F75626C65731A0408011001200128013801400130013A0909000000000000D03F420E0A0A0A05626F61726412016318014A0A726573756C74732F2A2A5214080111000000000000F03F190000000000004E407001780181010000000000001440880101900101',1796011061685920,3,'',0,'',0,'',0,'',1796011064036256,'default/pipelines/counting-8a221d/succeeded/1',NULL,'8cdaf54058dc07855b5ae3a5cb835d62','operator/local');
INSERT INTO "pipelines" VALUES(2,'default','fails-0a2b28','da05959c390a4c97a5006e6c0d32183e',X'0A056661696C731A690A056661696C731202736812022D63120F6563686F206E6F3B206578697420331A0030013A0909000000000000F03F420218014A0A726573756C74732F2A2A52140802119A9999999999B93F190000000000004E407001780181010000000000001440880101900101',1796011065655897,4,'EXIT',3,'job fails failed (EXIT 3): fails ended with exit status 3',1,'NEIGHBOUR',0,'job fails failed (EXIT 3)',1796011065861870,'default/pipelines/fails-0a2b28/failed/1',NULL,'b10a03d37f52f1f6034141c8690f0179','operator/local');
INSERT INTO "pipelines" VALUES(3,'default','long-ac332e','4fc8f764f5f949b89a75ab8b47412a22',X'0A046C6F6E671A670A046C6F6E671205736C65657012033630301A0030013A0909000000000000F03F420E0A0A0A05626F61726412016118014A0A726573756C74732F2A2A5214080111000000000000F03F190000000000004E407001780181010000000000001440880101900101',1796011066661198,2,'',0,'',0,'',0,'',NULL,'',NULL,'f59dc849a600985dd857fd37e930e846','operator/local');
INSERT INTO "pipelines" VALUES(4,'default','waits-8e57e0','37f4844ca42a43889f5ded21548c7b62',X'0A0577616974731A680A0577616974731204747275651A0030013A0909000000000000F03F42140A100A05626F61726412076E6F776865726518014A0A726573756C74732F2A2A5214080111000000000000F03F190000000000004E407001780181010000000000001440880101900101',1796011067834691,1,'',0,'',0,'',0,'',NULL,'',NULL,'80117742ffd9af09367beeeae9f63d36','operator/local');
CREATE TABLE requests (
    namespace TEXT NOT NULL,
    request_id TEXT NOT NULL,
    pipeline TEXT NOT NULL, digest TEXT NOT NULL DEFAULT '', time INTEGER NOT NULL DEFAULT 0, ended INTEGER,
    PRIMARY KEY (namespace, request_id)
) WITHOUT ROWID;
INSERT INTO "requests" VALUES('default','16cce76bc2b949578875071e594b45ea','counting-8a221d','0a92407956c2e61065b13e38e3909877c1c21a2ab8788db1e67662f05f1a5d28',1796011061685920,NULL);
INSERT INTO "requests" VALUES('default','37f4844ca42a43889f5ded21548c7b62','waits-8e57e0','3df97faa8aa8c3f405cff2d101dc7cf4bc11c0a5a5b21bc7f33d979e8255ad4a',1796011067834691,NULL);
INSERT INTO "requests" VALUES('default','4fc8f764f5f949b89a75ab8b47412a22','long-ac332e','55757cdca077ace5f3804f98f7a8b1c75f35f73c7e117ac87d6065af87593f25',1796011066661198,NULL);
INSERT INTO "requests" VALUES('default','da05959c390a4c97a5006e6c0d32183e','fails-0a2b28','2e12f3ca5befdc8a11ae7f1d5f8200422a3868c363cee560ffeb306bab88e12e',1796011065655897,NULL);
CREATE TABLE scales (
    namespace TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    number INTEGER NOT NULL,
    job TEXT NOT NULL,
    replicas INTEGER NOT NULL,
    state INTEGER NOT NULL,
    create_time INTEGER NOT NULL,
    rounds INTEGER NOT NULL,
    message TEXT NOT NULL,
    end_time INTEGER,
    PRIMARY KEY (namespace, pipeline, number)
) WITHOUT ROWID;
CREATE TABLE starts (
    term INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    commits INTEGER NOT NULL
);
INSERT INTO "starts" VALUES(1,'9f5c100d905e8e15',43);
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    secret_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    name_pattern TEXT NOT NULL,
    namespace TEXT NOT NULL,
    create_time INTEGER NOT NULL,
    expire_time INTEGER NOT NULL,
    uses_left INTEGER NOT NULL,
    creator TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "tokens" VALUES('1780e0ea','1b62a0bcc18d84db86470d88f0f251eee19a96c6789307d35584eb4da057c3f2','node','*','',1796011052887118,1796014652887118,6,'operator/local');
CREATE INDEX outbox_waiting ON outbox (sequence) WHERE published = 0;
CREATE INDEX outbox_by_pipeline ON outbox (namespace, pipeline, sequence);
CREATE INDEX requests_by_time ON requests (time);
CREATE INDEX outbox_newest ON outbox (namespace, subject) WHERE published = 0 AND kind = 'state';
CREATE INDEX pipelines_by_creator ON pipelines (creator, state) WHERE creator <> '';
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('outbox',32);
INSERT INTO "sqlite_sequence" VALUES('pipelines',4);
COMMIT;
PRAGMA user_version = 13;
