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
INSERT INTO "attempts" VALUES('default','counting-4702ba','double',1,1,'b',7,'',0,'',1796007239374313,1796007239748953,1796007240595254,'[]','["numbers"]','[]','[]');
INSERT INTO "attempts" VALUES('default','counting-4702ba','sink',1,1,'c',7,'',0,'',1796007239374313,1796007239938343,1796007240644564,'[]','["values"]','[]','[]');
INSERT INTO "attempts" VALUES('default','counting-4702ba','source',1,1,'a',7,'',0,'',1796007239374313,1796007239902469,1796007240619282,'[]','[]','[]','[]');
INSERT INTO "attempts" VALUES('default','fails-ebb5b3','fails',1,1,'a',8,'EXIT',3,'fails ended with exit status 3',1796007241896562,1796007241923577,1796007241923177,'[]','[]','[]','[]');
INSERT INTO "attempts" VALUES('default','fails-ebb5b3','fails',2,2,'a',8,'EXIT',3,'fails ended with exit status 3',1796007242037331,1796007242049393,1796007242050031,'[]','[]','[]','[]');
INSERT INTO "attempts" VALUES('default','long-683a60','long',1,1,'a',4,'',0,'',1796007242512853,1796007242533218,NULL,'[]','[]','[]','[]');
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
INSERT INTO "certificates" VALUES('28f37701422da0c825c098e9e96fe33381077790','operator','local','',1796007231250884,1827543231000000,'c6df5b49df770dba6411104aeda41840d65f4d3780f9e5bcad5d492a8a5dcb5f','a55a209981bb93fb7657d01372923587ae97e0a8d05b29b4d3d8b4e021408eab',X'2D2D2D2D2D424547494E2043455254494649434154452D2D2D2D2D0A4D494943455443434162616741774942416749554B504E33415549746F4D676C774A6A7036572F6A4D34454864354177436759494B6F5A497A6A3045417749770A495445664D42304741315545417777575532687659577767597A67315A5755304E7A6B774D7A6778595749784F544165467730334D4441784D4445774D4441770A4D444661467730794E7A45784D7A41774D6A557A4E5446614D424178446A414D42674E5642414D4D42577876593246734D466B77457759484B6F5A497A6A30430A415159494B6F5A497A6A30444151634451674145614B5751646556726C47736266537556552B4F4E78534269486B41557961476342796C435A4E5759702F57790A35764F646D6D5378306E692B65665557644B4978744D705161735357676F714E527A572F50717A6246714F42334443423254426142674E5648524545557A42520A6869687A63476C6D5A6D55364C79396A4F44566C5A5451334F54417A4F444668596A45354C3239775A584A68644739794C327876593246736769567362324E680A6243357663475679595852766369356A4F44566C5A5451334F54417A4F444668596A45354C6E4E6F623246734D41774741315564457745422F7751434D4141770A44675944565230504151482F42415144416765414D423047413155644A5151574D425147434373474151554642774D42426767724267454642516344416A41640A42674E564851344546675155454C4C3952416C794C4435636F386661343136563146627376687777487759445652306A42426777466F415559697A6C6E3944690A6156392B4B785155725771594158543733413077436759494B6F5A497A6A3045417749445351417752674968414F362B33753166384B55343341735A7A4348490A5443794D64466933764F3673592B586D334B546F714E63784169454178672B747A713742684A4378655156496E68776B71436F64434470674D4A7838635A42410A664963693272343D0A2D2D2D2D2D454E442043455254494649434154452D2D2D2D2D0A','',NULL,'');
INSERT INTO "certificates" VALUES('3ab137d3795dc9c081b163205c57ba32507a0431','node','b','',1796007235494477,1827543235000000,'1f39a78f5be4403c615325f2a61731f312e8f39cef636403bf47c863e3637699','a55a209981bb93fb7657d01372923587ae97e0a8d05b29b4d3d8b4e021408eab',X'2D2D2D2D2D424547494E2043455254494649434154452D2D2D2D2D0A4D4949422B7A434341614B6741774942416749554F72453330336C647963434273574D67584665364D6C423642444577436759494B6F5A497A6A3045417749770A495445664D42304741315545417777575532687659577767597A67315A5755304E7A6B774D7A6778595749784F544165467730334D4441784D4445774D4441770A4D444661467730794E7A45784D7A41774D6A557A4E5456614D417778436A414942674E5642414D4D415749775754415442676371686B6A4F50514942426767710A686B6A4F50514D4242774E4341415233424C366F475A64666A45335652646B394A304A48365A3576506174456757624D554173494C7164534E4F2B56382F4D790A712B673653554C556F70706F7A537364746D672B4B483335304B33344B555A32506B6F4F6F34484D4D49484A4D456F4741315564455152444D45474749484E770A61575A6D5A546F764C324D344E57566C4E4463354D444D344D5746694D546B76626D396B5A533969676831694C6D35765A475575597A67315A5755304E7A6B770A4D7A6778595749784F53357A614739686244414D42674E5648524D4241663845416A41414D41344741315564447745422F775145417749486744416442674E560A48535545466A4155426767724267454642516344415159494B7759424251554841774977485159445652304F42425945464675792F6D32677370693864656C530A7744325168714E355A5A32584D42384741315564497751594D42614146474973355A2F51346D6C6666697355464B31716D4146302B39774E4D416F47434371470A534D343942414D43413063414D45514349475A64356730666A55537A4F2B6E332F552B75712F7659454E75796C766D73795962393666476178502F33416941510A514347306D797543682F6D50473572636B62666F692F5655354A4648304C76722F51556C35514B4559413D3D0A2D2D2D2D2D454E442043455254494649434154452D2D2D2D2D0A','ed089253',NULL,'');
INSERT INTO "certificates" VALUES('45fc1fb97a1487e78e14d3607b081a285dde90dd','node','c','',1796007237450461,1827543237000000,'485de65b8f2d718e740d4f5d3c7022992e5c89f2137f318afce55d1fbd034523','a55a209981bb93fb7657d01372923587ae97e0a8d05b29b4d3d8b4e021408eab',X'2D2D2D2D2D424547494E2043455254494649434154452D2D2D2D2D0A4D4949422F44434341614B6741774942416749555266776675586F55682B654F464E4E67657767614B4633656B4E3077436759494B6F5A497A6A3045417749770A495445664D42304741315545417777575532687659577767597A67315A5755304E7A6B774D7A6778595749784F544165467730334D4441784D4445774D4441770A4D444661467730794E7A45784D7A41774D6A557A4E5464614D417778436A414942674E5642414D4D41574D775754415442676371686B6A4F50514942426767710A686B6A4F50514D4242774E4341415465326E3054736E566C624F4A674132716B304A486765523056306C794E304E3554655A6C6947334D6C59397A497A7170630A43466F77316E42775679744B62326D4842416233306830796261646A435A625159474D306F34484D4D49484A4D456F4741315564455152444D45474749484E770A61575A6D5A546F764C324D344E57566C4E4463354D444D344D5746694D546B76626D396B5A53396A6768316A4C6D35765A475575597A67315A5755304E7A6B770A4D7A6778595749784F53357A614739686244414D42674E5648524D4241663845416A41414D41344741315564447745422F775145417749486744416442674E560A48535545466A4155426767724267454642516344415159494B7759424251554841774977485159445652304F42425945464C5332456E446351582F764A6F2F620A6E4A777844526936426F78754D42384741315564497751594D42614146474973355A2F51346D6C6666697355464B31716D4146302B39774E4D416F47434371470A534D343942414D43413067414D455543495143636C67756F4A735A6830564A714E634D5361375255434445345A4B6E716D766D4137436A6557765548755149670A516F4B53707364306D4B43306E394130484E38314E5A4361736E4D6C4376687354446F41445678685A69673D0A2D2D2D2D2D454E442043455254494649434154452D2D2D2D2D0A','ed089253',NULL,'');
INSERT INTO "certificates" VALUES('52bd11dca687e881e175ee756d3583ee2d53f18f','node','a','',1796007233096887,1827543233000000,'a9ba855ce5b8b28fc21d87e578d7bd485b4fd2c76bf1e7cea2768f8a8b4ae63c','a55a209981bb93fb7657d01372923587ae97e0a8d05b29b4d3d8b4e021408eab',X'2D2D2D2D2D424547494E2043455254494649434154452D2D2D2D2D0A4D4949422F54434341614B67417749424167495555723052334B61483649486864653531625457443769315438593877436759494B6F5A497A6A3045417749770A495445664D42304741315545417777575532687659577767597A67315A5755304E7A6B774D7A6778595749784F544165467730334D4441784D4445774D4441770A4D444661467730794E7A45784D7A41774D6A557A4E544E614D417778436A414942674E5642414D4D415745775754415442676371686B6A4F50514942426767710A686B6A4F50514D4242774E4341415454502B6E703570426E79646E57496448534E364644703175676673704B527943307A51345668656B474A593274727036730A3070706E4752773168746B7A64475966504241766378745145324E4B487961307A6F59576F34484D4D49484A4D456F4741315564455152444D45474749484E770A61575A6D5A546F764C324D344E57566C4E4463354D444D344D5746694D546B76626D396B5A533968676831684C6D35765A475575597A67315A5755304E7A6B770A4D7A6778595749784F53357A614739686244414D42674E5648524D4241663845416A41414D41344741315564447745422F775145417749486744416442674E560A48535545466A4155426767724267454642516344415159494B7759424251554841774977485159445652304F42425945464A53533064614574374F4D5A4169770A383064757A31632F712B53664D42384741315564497751594D42614146474973355A2F51346D6C6666697355464B31716D4146302B39774E4D416F47434371470A534D343942414D4341306B414D455943495144516C756C695367714656637771716F6F6B4F6D45774656705472514249324E38457161333676342F56457749680A414B6D71576C7A7239744D63685934353978766D4B7732484964564758302B36314D32325175612B6C35556D0A2D2D2D2D2D454E442043455254494649434154452D2D2D2D2D0A','ed089253',NULL,'');
CREATE TABLE cluster (id TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO "cluster" VALUES('c85ee4790381ab19');
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
INSERT INTO "jobs" VALUES('default','counting-4702ba','double',7,'',0,'',1,1,0,0,NULL,'','[]',NULL);
INSERT INTO "jobs" VALUES('default','counting-4702ba','sink',7,'',0,'',1,1,0,0,NULL,'','[]',NULL);
INSERT INTO "jobs" VALUES('default','counting-4702ba','source',7,'',0,'',1,1,0,0,NULL,'','[]',NULL);
INSERT INTO "jobs" VALUES('default','fails-ebb5b3','fails',8,'EXIT',3,'fails ended with exit status 3',2,2,2,0,NULL,'','[]',NULL);
INSERT INTO "jobs" VALUES('default','long-683a60','long',4,'',0,'',1,1,0,0,NULL,'','[]',NULL);
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
INSERT INTO "manifests" VALUES('default','counting-4702ba','double',1,1,'default/pipelines/counting-4702ba/jobs/double/manifest.json','[]',1796007240749688);
INSERT INTO "manifests" VALUES('default','counting-4702ba','sink',1,1,'default/pipelines/counting-4702ba/jobs/sink/manifest.json','[["results/count",2,"a21855da08cb102d1d217c53dc5824a3a795c1c1a44e971bf01ab9da3a2acbbf","default/pipelines/counting-4702ba/jobs/sink/attempts/1-1/out/results/count"]]',1796007240716858);
INSERT INTO "manifests" VALUES('default','counting-4702ba','source',1,1,'default/pipelines/counting-4702ba/jobs/source/manifest.json','[["results/count",2,"a21855da08cb102d1d217c53dc5824a3a795c1c1a44e971bf01ab9da3a2acbbf","default/pipelines/counting-4702ba/jobs/source/attempts/1-1/out/results/count"]]',1796007240788827);
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
INSERT INTO "nodes" VALUES('a','490f6983',4.0,25276510208,'[]','{"board":"a"}','x86_64','127.0.0.1:43507','0.1.0','a',0,1796007242544094,'ad70aa4d','up');
INSERT INTO "nodes" VALUES('b','58ab4e94',4.0,25276510208,'[]','{"board":"b"}','x86_64','127.0.0.1:34845','0.1.0','b',0,1796007244094085,'4c8b5b47','up');
INSERT INTO "nodes" VALUES('c','aacea447',4.0,25276510208,'[]','{"board":"c"}','x86_64','127.0.0.1:42179','0.1.0','c',1,1796007244069110,'b9451125','up');
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
INSERT INTO "outbox" VALUES(1,'note','','operator','callers/operator/local','callers/operator/local/called/1','shoal.caller.called',1796007231764743,'','{"address":"127.0.0.1","caller":"operator/local","method":"IdentityService.CreateToken","name":"ed089253","namespace":"","state":"called","user":""}',0,'');
INSERT INTO "outbox" VALUES(2,'event','','node','identities/node/a','identities/node/a/joined/52bd11dca687e881e175ee756d3583ee2d53f18f','shoal.identity.joined',1796007233098892,'','{"address":"127.0.0.1","creator":"operator/local","name":"a","replaced":[],"role":"node","role_namespace":"","serial":"52bd11dca687e881e175ee756d3583ee2d53f18f","state":"joined","token":"ed089253"}',0,'');
INSERT INTO "outbox" VALUES(3,'state','','a','nodes/a','nodes/a/up/3','shoal.node.up',1796007234290524,'','{"drained":false,"node":"a","presence":"up","quarantine":"","reason":{"code":"","message":"","number":0},"state":"up"}',0,'');
INSERT INTO "outbox" VALUES(4,'event','','node','identities/node/b','identities/node/b/joined/3ab137d3795dc9c081b163205c57ba32507a0431','shoal.identity.joined',1796007235496475,'','{"address":"127.0.0.1","creator":"operator/local","name":"b","replaced":[],"role":"node","role_namespace":"","serial":"3ab137d3795dc9c081b163205c57ba32507a0431","state":"joined","token":"ed089253"}',0,'');
INSERT INTO "outbox" VALUES(5,'state','','b','nodes/b','nodes/b/up/5','shoal.node.up',1796007236207043,'','{"drained":false,"node":"b","presence":"up","quarantine":"","reason":{"code":"","message":"","number":0},"state":"up"}',0,'');
INSERT INTO "outbox" VALUES(6,'event','','node','identities/node/c','identities/node/c/joined/45fc1fb97a1487e78e14d3607b081a285dde90dd','shoal.identity.joined',1796007237452497,'','{"address":"127.0.0.1","creator":"operator/local","name":"c","replaced":[],"role":"node","role_namespace":"","serial":"45fc1fb97a1487e78e14d3607b081a285dde90dd","state":"joined","token":"ed089253"}',0,'');
INSERT INTO "outbox" VALUES(8,'note','','operator','callers/operator/local','callers/operator/local/called/8','shoal.caller.called',1796007239371687,'','{"address":"127.0.0.1","caller":"operator/local","method":"PipelinesService.SubmitPipelines","name":"pipelines/counting-4702ba","namespace":"default","state":"called","user":""}',0,'');
INSERT INTO "outbox" VALUES(9,'event','default','counting-4702ba','pipelines/counting-4702ba/jobs/double','default/pipelines/counting-4702ba/jobs/double/running/1','shoal.job.running',1796007239758214,'','{"attempt":"pipelines/counting-4702ba/jobs/double/attempts/1","epoch":1,"job":"double","namespace":"default","node":"b","pipeline":"counting-4702ba","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(10,'event','default','counting-4702ba','pipelines/counting-4702ba','default/pipelines/counting-4702ba/running/1','shoal.pipeline.running',1796007239758214,'','{"jobs":{"double":"running","sink":"preparing","source":"preparing"},"namespace":"default","pipeline":"counting-4702ba","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(11,'event','default','counting-4702ba','pipelines/counting-4702ba/jobs/source','default/pipelines/counting-4702ba/jobs/source/running/1','shoal.job.running',1796007239909704,'','{"attempt":"pipelines/counting-4702ba/jobs/source/attempts/1","epoch":1,"job":"source","namespace":"default","node":"a","pipeline":"counting-4702ba","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(12,'event','default','counting-4702ba','pipelines/counting-4702ba/jobs/sink','default/pipelines/counting-4702ba/jobs/sink/running/1','shoal.job.running',1796007239946603,'','{"attempt":"pipelines/counting-4702ba/jobs/sink/attempts/1","epoch":1,"job":"sink","namespace":"default","node":"c","pipeline":"counting-4702ba","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(14,'event','default','counting-4702ba','pipelines/counting-4702ba/jobs/sink','default/pipelines/counting-4702ba/jobs/sink/succeeded/1','shoal.job.succeeded',1796007240716858,'','{"attempt":"pipelines/counting-4702ba/jobs/sink/attempts/1","epoch":1,"job":"sink","manifest":{"artifacts":[{"key":"default/pipelines/counting-4702ba/jobs/sink/attempts/1-1/out/results/count","path":"results/count","sha256":"a21855da08cb102d1d217c53dc5824a3a795c1c1a44e971bf01ab9da3a2acbbf","size_bytes":2}],"key":"default/pipelines/counting-4702ba/jobs/sink/manifest.json"},"namespace":"default","node":"c","pipeline":"counting-4702ba","reason":{"code":"","message":"","number":0},"state":"succeeded"}',0,'');
INSERT INTO "outbox" VALUES(16,'event','default','counting-4702ba','pipelines/counting-4702ba/jobs/double','default/pipelines/counting-4702ba/jobs/double/succeeded/1','shoal.job.succeeded',1796007240749688,'','{"attempt":"pipelines/counting-4702ba/jobs/double/attempts/1","epoch":1,"job":"double","manifest":{"artifacts":[],"key":"default/pipelines/counting-4702ba/jobs/double/manifest.json"},"namespace":"default","node":"b","pipeline":"counting-4702ba","reason":{"code":"","message":"","number":0},"state":"succeeded"}',0,'');
INSERT INTO "outbox" VALUES(18,'event','default','counting-4702ba','pipelines/counting-4702ba/jobs/source','default/pipelines/counting-4702ba/jobs/source/succeeded/1','shoal.job.succeeded',1796007240788827,'','{"attempt":"pipelines/counting-4702ba/jobs/source/attempts/1","epoch":1,"job":"source","manifest":{"artifacts":[{"key":"default/pipelines/counting-4702ba/jobs/source/attempts/1-1/out/results/count","path":"results/count","sha256":"a21855da08cb102d1d217c53dc5824a3a795c1c1a44e971bf01ab9da3a2acbbf","size_bytes":2}],"key":"default/pipelines/counting-4702ba/jobs/source/manifest.json"},"namespace":"default","node":"a","pipeline":"counting-4702ba","reason":{"code":"","message":"","number":0},"state":"succeeded"}',0,'');
INSERT INTO "outbox" VALUES(19,'event','default','counting-4702ba','pipelines/counting-4702ba','default/pipelines/counting-4702ba/succeeded/1','shoal.pipeline.succeeded',1796007240788827,'','{"artifacts":[{"job":"source","key":"default/pipelines/counting-4702ba/jobs/source/attempts/1-1/out/results/count","path":"results/count","sha256":"a21855da08cb102d1d217c53dc5824a3a795c1c1a44e971bf01ab9da3a2acbbf","size_bytes":2},{"job":"sink","key":"default/pipelines/counting-4702ba/jobs/sink/attempts/1-1/out/results/count","path":"results/count","sha256":"a21855da08cb102d1d217c53dc5824a3a795c1c1a44e971bf01ab9da3a2acbbf","size_bytes":2}],"finished":false,"jobs":{"double":"succeeded","sink":"succeeded","source":"succeeded"},"manifests":"default/pipelines/counting-4702ba/jobs/*/manifest.json","mismatches":[],"namespace":"default","pipeline":"counting-4702ba","reason":{"code":"","message":"","number":0},"state":"succeeded"}',0,'');
INSERT INTO "outbox" VALUES(20,'note','','operator','callers/operator/local','callers/operator/local/called/20','shoal.caller.called',1796007241895761,'','{"address":"127.0.0.1","caller":"operator/local","method":"PipelinesService.SubmitPipelines","name":"pipelines/fails-ebb5b3","namespace":"default","state":"called","user":""}',0,'');
INSERT INTO "outbox" VALUES(21,'event','default','fails-ebb5b3','pipelines/fails-ebb5b3/jobs/fails','default/pipelines/fails-ebb5b3/jobs/fails/running/1','shoal.job.running',1796007241933064,'','{"attempt":"pipelines/fails-ebb5b3/jobs/fails/attempts/1","epoch":1,"job":"fails","namespace":"default","node":"a","pipeline":"fails-ebb5b3","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(22,'event','default','fails-ebb5b3','pipelines/fails-ebb5b3','default/pipelines/fails-ebb5b3/running/1','shoal.pipeline.running',1796007241933064,'','{"jobs":{"fails":"running"},"namespace":"default","pipeline":"fails-ebb5b3","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(23,'event','default','fails-ebb5b3','pipelines/fails-ebb5b3/jobs/fails','default/pipelines/fails-ebb5b3/jobs/fails/retry/1','shoal.job.retry',1796007241936309,'','{"attempt":"pipelines/fails-ebb5b3/jobs/fails/attempts/1","epoch":1,"failures":1,"failures_max":2,"job":"fails","losses":0,"namespace":"default","next_time":"2026-11-30T02:54:02.036309Z","node":"a","pipeline":"fails-ebb5b3","reason":{"code":"EXIT","message":"fails ended with exit status 3","number":3},"state":"retry"}',0,'');
INSERT INTO "outbox" VALUES(24,'event','default','fails-ebb5b3','pipelines/fails-ebb5b3/jobs/fails','default/pipelines/fails-ebb5b3/jobs/fails/running/2','shoal.job.running',1796007242052788,'','{"attempt":"pipelines/fails-ebb5b3/jobs/fails/attempts/2","epoch":2,"job":"fails","namespace":"default","node":"a","pipeline":"fails-ebb5b3","reason":{"code":"EXIT","message":"fails ended with exit status 3","number":3},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(25,'event','default','fails-ebb5b3','pipelines/fails-ebb5b3/jobs/fails','default/pipelines/fails-ebb5b3/jobs/fails/failed/2','shoal.job.failed',1796007242059060,'','{"attempt":"pipelines/fails-ebb5b3/jobs/fails/attempts/2","epoch":2,"job":"fails","namespace":"default","node":"a","pipeline":"fails-ebb5b3","reason":{"code":"EXIT","message":"fails ended with exit status 3","number":3},"state":"failed"}',0,'');
INSERT INTO "outbox" VALUES(26,'event','default','fails-ebb5b3','pipelines/fails-ebb5b3','default/pipelines/fails-ebb5b3/failed/1','shoal.pipeline.failed',1796007242059060,'','{"artifacts":[],"finished":false,"jobs":{"fails":"failed"},"manifests":"default/pipelines/fails-ebb5b3/jobs/*/manifest.json","mismatches":[],"namespace":"default","pipeline":"fails-ebb5b3","reason":{"code":"EXIT","message":"job fails failed (EXIT 3): fails ended with exit status 3","number":3},"state":"failed"}',0,'');
INSERT INTO "outbox" VALUES(27,'note','','operator','callers/operator/local','callers/operator/local/called/27','shoal.caller.called',1796007242511759,'','{"address":"127.0.0.1","caller":"operator/local","method":"PipelinesService.SubmitPipelines","name":"pipelines/long-683a60","namespace":"default","state":"called","user":""}',0,'');
INSERT INTO "outbox" VALUES(28,'event','default','long-683a60','pipelines/long-683a60/jobs/long','default/pipelines/long-683a60/jobs/long/running/1','shoal.job.running',1796007242544094,'','{"attempt":"pipelines/long-683a60/jobs/long/attempts/1","epoch":1,"job":"long","namespace":"default","node":"a","pipeline":"long-683a60","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(29,'event','default','long-683a60','pipelines/long-683a60','default/pipelines/long-683a60/running/1','shoal.pipeline.running',1796007242544094,'','{"jobs":{"long":"running"},"namespace":"default","pipeline":"long-683a60","reason":{"code":"","message":"","number":0},"state":"running"}',0,'');
INSERT INTO "outbox" VALUES(30,'note','','operator','callers/operator/local','callers/operator/local/called/30','shoal.caller.called',1796007243478834,'','{"address":"127.0.0.1","caller":"operator/local","method":"PipelinesService.SubmitPipelines","name":"pipelines/waits-7fedbe","namespace":"default","state":"called","user":""}',0,'');
INSERT INTO "outbox" VALUES(31,'state','','c','nodes/c','nodes/c/drained/31','shoal.node.drained',1796007244017435,'','{"drained":true,"node":"c","presence":"up","quarantine":"","reason":{"code":"","message":"","number":0},"state":"drained"}',0,'');
INSERT INTO "outbox" VALUES(32,'note','','operator','callers/operator/local','callers/operator/local/called/32','shoal.caller.called',1796007244017435,'','{"address":"127.0.0.1","caller":"operator/local","method":"NodesService.DrainNode","name":"nodes/c","namespace":"","state":"called","user":""}',0,'');
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
INSERT INTO "pipelines" VALUES(1,'default','counting-4702ba','6edb814549434dbba5a4813079e81c20',X'0A08636F756E74696E671240383832643565353062303530633065643261303038633739653362623836653431633565383261636232656336386163396231343665623138646334323637301AB2010A06736F757263651206707974686F6E1209736F757263652E7079122D2F746D702F73686F616C2D6D697865642D30636E7277325F792F636F756E74696E672D612D622D632E73746F701A002A110A076E756D62657273120408011001180130013A0909000000000000D03F420E0A0A0A05626F61726412016118014A0A726573756C74732F2A2A5214080111000000000000F03F190000000000004E4070017801810100000000000014408801019001011AAF010A06646F75626C651206707974686F6E1209646F75626C652E70791A00222A0A076E756D62657273121F0A06736F7572636512076E756D626572731A040801100120012801380140012A110A07646F75626C6573120408011001180130013A0909000000000000D03F420E0A0A0A05626F61726412016218014A0A726573756C74732F2A2A5214080111000000000000F03F190000000000004E4070017801810100000000000014408801019001011A97010A0473696E6B1206707974686F6E120773696E6B2E70791A0022290A0676616C756573121F0A06646F75626C651207646F75626C65731A0408011001200128013801400130013A0909000000000000D03F420E0A0A0A05626F61726412016318014A0A726573756C74732F2A2A5214080111000000000000F03F190000000000004E407001780181010000000000001440880101900101',1796007239371687,3,'',0,'',0,'',0,'',1796007240788827,'default/pipelines/counting-4702ba/succeeded/1',NULL,'8cdaf54058dc07855b5ae3a5cb835d62','operator/local');
INSERT INTO "pipelines" VALUES(2,'default','fails-ebb5b3','9a91602ff49b42c0b995a90d3bcb3b40',X'0A056661696C731A690A056661696C731202736812022D63120F6563686F206E6F3B206578697420331A0030013A0909000000000000F03F420218014A0A726573756C74732F2A2A52140802119A9999999999B93F190000000000004E407001780181010000000000001440880101900101',1796007241895761,4,'EXIT',3,'job fails failed (EXIT 3): fails ended with exit status 3',1,'NEIGHBOUR',0,'job fails failed (EXIT 3)',1796007242059060,'default/pipelines/fails-ebb5b3/failed/1',NULL,'b10a03d37f52f1f6034141c8690f0179','operator/local');
INSERT INTO "pipelines" VALUES(3,'default','long-683a60','10c02afceff54939b8bceeaf5815f26a',X'0A046C6F6E671A670A046C6F6E671205736C65657012033630301A0030013A0909000000000000F03F420E0A0A0A05626F61726412016118014A0A726573756C74732F2A2A5214080111000000000000F03F190000000000004E407001780181010000000000001440880101900101',1796007242511759,2,'',0,'',0,'',0,'',NULL,'',NULL,'f59dc849a600985dd857fd37e930e846','operator/local');
INSERT INTO "pipelines" VALUES(4,'default','waits-7fedbe','538b3106cbeb4cf59898590130453823',X'0A0577616974731A680A0577616974731204747275651A0030013A0909000000000000F03F42140A100A05626F61726412076E6F776865726518014A0A726573756C74732F2A2A5214080111000000000000F03F190000000000004E407001780181010000000000001440880101900101',1796007243478834,1,'',0,'',0,'',0,'',NULL,'',NULL,'80117742ffd9af09367beeeae9f63d36','operator/local');
CREATE TABLE requests (
    namespace TEXT NOT NULL,
    request_id TEXT NOT NULL,
    pipeline TEXT NOT NULL, digest TEXT NOT NULL DEFAULT '', time INTEGER NOT NULL DEFAULT 0, ended INTEGER,
    PRIMARY KEY (namespace, request_id)
) WITHOUT ROWID;
INSERT INTO "requests" VALUES('default','10c02afceff54939b8bceeaf5815f26a','long-683a60','55757cdca077ace5f3804f98f7a8b1c75f35f73c7e117ac87d6065af87593f25',1796007242511759,NULL);
INSERT INTO "requests" VALUES('default','538b3106cbeb4cf59898590130453823','waits-7fedbe','3df97faa8aa8c3f405cff2d101dc7cf4bc11c0a5a5b21bc7f33d979e8255ad4a',1796007243478834,NULL);
INSERT INTO "requests" VALUES('default','6edb814549434dbba5a4813079e81c20','counting-4702ba','18a103d852c510846ef661a1342c74001a64c8cbbdc52ecb31d69bcdc3ba00ef',1796007239371687,NULL);
INSERT INTO "requests" VALUES('default','9a91602ff49b42c0b995a90d3bcb3b40','fails-ebb5b3','2e12f3ca5befdc8a11ae7f1d5f8200422a3868c363cee560ffeb306bab88e12e',1796007241895761,NULL);
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
INSERT INTO "starts" VALUES(1,'fde1d25cea3a5989',43);
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
INSERT INTO "tokens" VALUES('ed089253','5cb03b919687b2fa97b43591c2a628f7901980f368a336b9963799b58af83325','node','*','',1796007231762692,1796010831762692,6,'operator/local');
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
